// pcmoe/plan/weights_plan_test.cc: the predictions for the exchange `weights` against counts by
// hand.
#include "pcmoe/plan/weights_plan.h"

#include <cmath>
#include <limits>

#include "gtest/gtest.h"

namespace pcmoe::plan {
namespace {

using exchange::BackboneModes;
using exchange::PartMode;

constexpr BackboneModes kPrivate{};
constexpr BackboneModes kAggregated{PartMode::kAggregated, PartMode::kAggregated,
                                    PartMode::kAggregated};
constexpr BackboneModes kFromCheckpoint{PartMode::kAggregated, PartMode::kFrozen,
                                        PartMode::kPrivate};

model::ModelConfig Config(const std::string& json) {
  auto config = model::ParseConfig(json, "test");
  EXPECT_TRUE(config.ok()) << config.status();
  return *config;
}

model::ModelConfig Olmoe() {
  return Config(R"({"model_type": "olmoe", "vocab_size": 50304,
    "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 16,
    "num_key_value_heads": 16, "num_experts": 64, "num_experts_per_tok": 8,
    "intermediate_size": 1024, "max_position_embeddings": 4096})");
}

// At three parties each owns one expert of 384 numbers a layer. A block has 4 x 16 x 16 + 4 x 16 +
// 3 x 16 = 1136 numbers; those of layers 0 and 1 go to parties 0 and 1, head (528) and embedding
// (512) to party 2. All tensors are multiples of 64 bytes in fp32, so a message has 64 bytes more.
model::ModelConfig Small(const std::string& more = "", int layers = 2) {
  return Config(R"({"model_type": "olmoe", "vocab_size": 32, "hidden_size": 16,
    "num_attention_heads": 2, "num_key_value_heads": 2, "num_experts": 3,
    "num_experts_per_tok": 1, "intermediate_size": 8, "max_position_embeddings": 512)" +
                more + R"(, "num_hidden_layers": )" + std::to_string(layers) + "}");
}
constexpr double kRope = 4.0 * 512 * 8;
constexpr double kExpert = 384;
constexpr double kBlock = 1136;

WeightsPlan Plan(const model::ModelConfig& config, const Recipe& recipe, const BackboneModes& modes,
                 int64_t parties) {
  auto plan = WeightsPlan::Create(config, recipe, modes, parties);
  EXPECT_TRUE(plan.ok()) << plan.status();
  return *std::move(plan);
}

TEST(WeightsPlanTest, OlmoeIsThatOfTheDesign) {
  // DESIGN 3.3: 39 GB a step at n = 4 in bf16, equal to `rows` at about 55 k tokens.
  const Recipe recipe{.bf16 = true};
  const WeightsPlan plan = Plan(Olmoe(), recipe, kPrivate, 4);
  const double remote = 0.75 * 16 * 64 * 3 * 2048 * 1024;
  for (int party = 0; party < 4; ++party) {
    EXPECT_NEAR(plan.StepOf(party).sent, remote * 8, 1e6);
    EXPECT_NEAR(plan.StepOf(party).received, remote * 8, 1e6);
    EXPECT_NEAR(plan.SweepOf(party).sent, remote * 2, 1e6);
  }
  EXPECT_NEAR(plan.BusiestStep() / 1e9, 39, 0.5);
  EXPECT_NEAR(BreakEvenTokens(Olmoe(), recipe, 4, plan), 55e3, 2e3);
  const WeightsPlan kept = Plan(Olmoe(), {.bf16 = true, .keep_fetched = true}, kPrivate, 4);
  EXPECT_NEAR(kept.BusiestStep(), remote * 6, 1e6);
  EXPECT_GT(kept.TransientOf(0), plan.TransientOf(0) + 0.9 * 2 * remote);
  const WeightsPlan int8 = Plan(Olmoe(), {.bf16 = true, .int8_on_wire = true}, kPrivate, 4);
  EXPECT_NEAR(int8.BusiestStep() / (remote * 6), 1, 0.01);  // a scale per row besides
}

TEST(WeightsPlanTest, TrafficDoesNotGrowWithTheParties) {
  const double four = Plan(Olmoe(), {}, kPrivate, 4).BusiestStep();
  const double sixteen = Plan(Olmoe(), {}, kPrivate, 16).BusiestStep();
  EXPECT_NEAR(sixteen / four, (15.0 / 16) / (3.0 / 4), 1e-4);
}

TEST(WeightsPlanTest, StatesAreThoseOfTheOtherExchangeWhereTheyMustBe) {
  const std::string tied = R"(, "tie_word_embeddings": true)";
  for (const model::ModelConfig& config : {Olmoe(), Small(), Small(tied)}) {
    for (const bool bf16 : {false, true}) {
      const Recipe recipe{.bf16 = bf16};
      EXPECT_EQ(Plan(config, recipe, kPrivate, 1).StatesOf(0), StatesBytes(config, recipe, 1));
      EXPECT_EQ(Plan(config, recipe, kAggregated, 1).StatesOf(0), StatesBytes(config, recipe, 1));
      EXPECT_EQ(Plan(config, recipe, kAggregated, 1).Largest().transient, 0);
    }
  }
  EXPECT_EQ(Plan(Olmoe(), {}, kPrivate, 4).StatesOf(2), StatesBytes(Olmoe(), {}, 0.25));
}

TEST(WeightsPlanTest, StatesByHand) {
  const WeightsPlan all = Plan(Small(), {}, kAggregated, 3);
  EXPECT_EQ(all.StatesOf(0), 16 * (2 * kExpert + kBlock) + kRope);
  EXPECT_EQ(all.StatesOf(1), all.StatesOf(0));
  EXPECT_EQ(all.StatesOf(2), 16 * (2 * kExpert + 512 + 528) + kRope);
  // Embedding frozen, head private: everybody has both.
  const WeightsPlan some = Plan(Small(), {}, kFromCheckpoint, 3);
  EXPECT_EQ(some.StatesOf(0), 16 * (2 * kExpert + kBlock + 528) + 4 * 512 + kRope);
  EXPECT_EQ(some.StatesOf(2), 16 * (2 * kExpert + 528) + 4 * 512 + kRope);
  // No block is trained either, and everybody has all of them.
  const WeightsPlan frozen =
      Plan(Small(), {}, {PartMode::kFrozen, PartMode::kFrozen, PartMode::kPrivate}, 3);
  EXPECT_EQ(frozen.StatesOf(1), 16 * (2 * kExpert + 528) + 4 * (2 * kBlock + 512) + kRope);
  // bf16: copies of all but norms (64 a block, 16 at the end) and the embedding.
  const WeightsPlan bf16 = Plan(Small(), {.bf16 = true}, kFromCheckpoint, 3);
  EXPECT_EQ(bf16.StatesOf(0), some.StatesOf(0) + 2 * (2 * kExpert + (kBlock - 64) + (528 - 16)));
}

TEST(WeightsPlanTest, FlowsByHand) {
  const WeightsPlan plan = Plan(Small(), {}, kAggregated, 3);
  const double all = 2 * (3 * kExpert + kBlock) + 512 + 528;
  const auto message = [](double elements) { return 64 + 4 * elements; };
  const Flow step = plan.StepOf(0);
  EXPECT_EQ(step.sent, 2 * 2 * (message(kExpert + kBlock) + message(kExpert)) +
                           4 * (all - 2 * kExpert - kBlock));
  EXPECT_EQ(step.received,
            2 * (2 * message(kExpert) + message(kExpert + kBlock) + message(kExpert)) +
                message(512) + message(528) + 4 * 2 * (2 * kExpert + kBlock));
  EXPECT_EQ(plan.SweepOf(2).sent, 2 * (2 * message(kExpert) + message(512) + message(528)));
  double sent = 0;
  double received = 0;
  for (int party = 0; party < 3; ++party) {
    sent += plan.StepOf(party).sent;
    received += plan.StepOf(party).received;
    EXPECT_GE(plan.BusiestStep(), plan.StepOf(party).sent);
    EXPECT_GE(plan.BusiestStep(), plan.StepOf(party).received);
  }
  EXPECT_EQ(sent, received);
}

TEST(WeightsPlanTest, TransientsByHand) {
  // Fullest in the backward of layer 0: its weights from others (two experts), gradients and sums
  // of the whole layer, and those of layer 1 that wait.
  const WeightsPlan plan = Plan(Small(), {}, kAggregated, 3);
  EXPECT_EQ(plan.TransientOf(0), 4 * 2 * kExpert + 2 * 4 * (3 * kExpert + kBlock));
  const WeightsPlan kept = Plan(Small(), {.keep_fetched = true}, kAggregated, 3);
  EXPECT_EQ(kept.TransientOf(0), 4 * (4 * kExpert + kBlock) + 2 * 4 * (3 * kExpert + kBlock));
  EXPECT_GT(Plan(Small(), {}, kAggregated, 3).Largest().messages, 0);
}

TEST(WeightsPlanTest, BothExchangesTakeAsLongAtTheBreakEven) {
  const model::ModelConfig config = Olmoe();
  const Recipe recipe{.bf16 = true};
  const WeightsPlan plan = Plan(config, recipe, kPrivate, 4);
  for (const Link& link : {Link{200, 0.05, 0}, Link{200, 0.05, 500}, Link{10000, 0.001, 1e5}}) {
    const double tokens = BreakEvenTokens(config, recipe, 4, plan, link);
    ASSERT_GT(tokens, 0);
    EXPECT_NEAR(RowsSeconds(config, recipe, 4, link, tokens) / WeightsSeconds(plan, link, tokens),
                1, 1e-9);
    EXPECT_LT(RowsSeconds(config, recipe, 4, link, 0.9 * tokens),
              WeightsSeconds(plan, link, 0.9 * tokens));
    EXPECT_GT(RowsSeconds(config, recipe, 4, link, 1.1 * tokens),
              WeightsSeconds(plan, link, 1.1 * tokens));
  }
  // Without computing or delays only the bytes count.
  EXPECT_NEAR(BreakEvenTokens(config, recipe, 4, plan, {200, 0, 0}),
              BreakEvenTokens(config, recipe, 4, plan), 1e-6);
  // 38.7 GB at 200 Mbit/s, and seven delays of 25 ms.
  EXPECT_NEAR(WeightsSeconds(plan, {200, 0.05, 0}, 1), 38.65e9 * 8 / 200e6 + 0.175, 1);
  // What a token is multiplied with: 8 experts of 16 layers, 16 blocks and the head. Where experts
  // take longer than the transfer, computing is all.
  const double experts = 16.0 * 8 * 3 * 2048 * 1024;
  const double block = 4.0 * 2048 * 2048 + 4 * 2048 + 64 * 2048;
  const double all = experts + 16 * block + 2048 + 50304.0 * 2048;
  const double transfer = PredictTraffic(config, recipe, 4).bytes_per_token * 8 / 200e6;
  EXPECT_NEAR(RowsSeconds(config, recipe, 4, {200, 0, 1}, 1), 1, 1e-9);
  EXPECT_NEAR(RowsSeconds(config, recipe, 4, {200, 0, 100}, 1000),
              10 * (1 - experts / all) + 1000 * transfer, 1e-6);
  // One layer of rows waits for fewer delays, and computing is all that is left.
  const model::ModelConfig shallow = Small("", 1);
  const WeightsPlan one = Plan(shallow, {}, kPrivate, 3);
  EXPECT_EQ(BreakEvenTokens(shallow, {}, 3, one, {1e6, 0.01, 1}),
            std::numeric_limits<double>::infinity());
  const WeightsPlan alone = Plan(config, recipe, kPrivate, 1);
  EXPECT_EQ(BreakEvenTokens(config, recipe, 1, alone), std::numeric_limits<double>::infinity());
  EXPECT_EQ(WeightsSeconds(alone, {200, 0.05, 500}, 1000), 2);
  EXPECT_EQ(RowsSeconds(config, recipe, 1, {200, 0.05, 500}, 1000), 2);
}

TEST(WeightsPlanTest, RowsOfAnExpert) {
  EXPECT_EQ(RowsOfAnExpert(Olmoe(), {.batch = 4, .sequence = 256, .micro_batches = 2}, 4), 1024);
}

}  // namespace
}  // namespace pcmoe::plan
