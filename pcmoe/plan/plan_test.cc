// pcmoe/plan/plan_test.cc: the predictions against counts by hand, and against what must always
// hold.
#include "pcmoe/plan/plan.h"

#include <array>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace pcmoe::plan {
namespace {

model::ModelConfig Olmoe() {
  auto config = model::ParseConfig(R"({"model_type": "olmoe", "vocab_size": 50304,
    "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 16,
    "num_key_value_heads": 16, "num_experts": 64, "num_experts_per_tok": 8,
    "intermediate_size": 1024, "max_position_embeddings": 4096})",
                                   "test");
  EXPECT_TRUE(config.ok()) << config.status();
  return *config;
}

TEST(PlanTest, SavesWhatTheDesignSays) {
  const model::ModelConfig config = Olmoe();
  const double central = StatesBytes(config, {}, 1.0);
  const double party = StatesBytes(config, {}, 0.25);
  EXPECT_NEAR(1 - party / central, 0.698, 0.001);  // DESIGN section 8
  const model::ParameterCount count = model::CountParameters(config);
  EXPECT_NEAR(central, 16.0 * static_cast<double>(count.total), 4.0 * 4096 * 128 + 1);
}

TEST(PlanTest, Bf16AddsACopyOfWhatIsComputedIn) {
  const model::ModelConfig config = Olmoe();
  const model::ParameterCount count = model::CountParameters(config);
  const double copies = StatesBytes(config, {.bf16 = true}, 1.0) - StatesBytes(config, {}, 1.0);
  const double embedding = 50304.0 * 2048;
  const double norms = 33.0 * 2048 + 16.0 * 2 * 2048;
  EXPECT_NEAR(copies, 2 * (static_cast<double>(count.total) - embedding - norms), 1);
}

TEST(PlanTest, ShareOfRowsEqualsAnExperiment) {
  std::mt19937 random(7);  // 200,000 draws: four standard deviations are 0.0045 at most
  for (const auto [experts, chosen, owned] : {std::array{8, 2, 2}, {64, 8, 16}, {5, 3, 1}}) {
    int hits = 0;
    constexpr int kDraws = 200000;
    std::vector<int> ids(static_cast<size_t>(experts));
    for (int draw = 0; draw < kDraws; ++draw) {
      for (int e = 0; e < experts; ++e) ids[static_cast<size_t>(e)] = e;
      bool hit = false;
      for (int k = 0; k < chosen; ++k) {
        const int other = std::uniform_int_distribution<int>(k, experts - 1)(random);
        std::swap(ids[static_cast<size_t>(k)], ids[static_cast<size_t>(other)]);
        hit |= ids[static_cast<size_t>(k)] < owned;
      }
      hits += hit ? 1 : 0;
    }
    EXPECT_NEAR(ShareOfRows(experts, chosen, owned), static_cast<double>(hits) / kDraws, 0.005);
  }
  EXPECT_EQ(ShareOfRows(4, 2, 4), 1);
  EXPECT_EQ(ShareOfRows(4, 2, 0), 0);
}

TEST(PlanTest, TrafficOfOlmoeIsThatOfTheDesign) {
  // DESIGN 3.3: 703 kB (of 1024 bytes) a token at n = 4 in bf16.
  const Traffic traffic = PredictTraffic(Olmoe(), {.bf16 = true}, 4);
  EXPECT_NEAR(traffic.remote_owners, 2.744, 0.001);
  EXPECT_NEAR(traffic.bytes_per_token / 1024, 703, 1);
  EXPECT_EQ(PredictTraffic(Olmoe(), {}, 1).bytes_per_token, 0);
}

TEST(PlanTest, MoreWorkNeedsMoreMemory) {
  const model::ModelConfig config = Olmoe();
  const double base = ActivationBytes(config, {}, 4);
  EXPECT_GT(ActivationBytes(config, {.micro_batches = 2}, 4), 1.5 * base);
  EXPECT_GT(ActivationBytes(config, {.sequence = 512}, 4), 1.5 * base);
  EXPECT_LT(ActivationBytes(config, {.recompute = true}, 4), base);
  EXPECT_LT(ActivationBytes(config, {.bf16 = true}, 4), base);
  EXPECT_EQ(PredictMemory(config, {}, 1).messages, 0);
  EXPECT_GT(PredictMemory(config, {}, 4).messages, 0);
}

}  // namespace
}  // namespace pcmoe::plan
