// tests/federation/weights_test.cc: the exchange `weights` trains what `rows` trains; with
// everything aggregated it trains what one process trains; its messages tell nothing of the data.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <mutex>

#include "party_threads.h"
#include "pcmoe/model/local_experts.h"
#include "pcmoe/optim/norm.h"
#include "pcmoe/transport/loopback.h"

namespace pcmoe::testing_federation {
namespace {

using exchange::PartMode;
using testing::IsEmpty;

constexpr exchange::BackboneModes kPrivate{};
constexpr exchange::BackboneModes kAggregated{PartMode::kAggregated, PartMode::kAggregated,
                                              PartMode::kAggregated};
constexpr exchange::BackboneModes kDefault{PartMode::kAggregated, PartMode::kFrozen,
                                           PartMode::kPrivate};

Recipe WeightsRecipe(const std::string& family, const exchange::BackboneModes& modes) {
  at::set_num_threads(1);
  Recipe recipe = SmallRecipe(family);
  recipe.weights = exchange::WeightsProvider::Options{};
  recipe.modes = modes;
  return recipe;
}

void ExpectOk(const std::vector<Outcome>& outcomes) {
  for (const Outcome& outcome : outcomes) ASSERT_TRUE(outcome.status.ok()) << outcome.status;
}

void ExpectSameBits(const std::vector<Outcome>& a, const std::vector<Outcome>& b) {
  ExpectOk(a);
  ExpectOk(b);
  for (size_t p = 0; p < a.size(); ++p) {
    EXPECT_THAT(Differences(a[p].experts, b[p].experts), IsEmpty());
    EXPECT_THAT(Differences(a[p].backbone, b[p].backbone), IsEmpty());
    EXPECT_EQ(a[p].losses, b[p].losses);
    EXPECT_EQ(a[p].grad_norms, b[p].grad_norms);
  }
}

// Largest error over the weights, relative to each tensor's largest value.
double LargestError(const Weights& got, const Weights& want) {
  double largest = 0;
  for (const auto& [name, tensor] : got) {
    // A bias of all keys hardly changes softmax: its gradient is what rounding left over.
    if (name.ends_with("k_proj.bias")) continue;
    const double error = (tensor - want.at(name)).abs().max().item<double>();
    largest = std::max(largest, error / want.at(name).abs().max().item<double>());
  }
  return largest;
}

class Families : public testing::TestWithParam<const char*> {};

TEST_P(Families, PrivateBackbonesTrainWhatRowsTrain) {
  Recipe recipe = WeightsRecipe(GetParam(), kPrivate);
  for (const int steps : {1, 20}) {
    recipe.steps = steps;
    const auto weights = RunParties(recipe, LoopbackChannels(recipe.parties));
    Recipe as_rows = recipe;
    as_rows.weights.reset();
    const auto rows = RunParties(as_rows, LoopbackChannels(recipe.parties));
    ExpectOk(weights);
    ExpectOk(rows);
    double largest = 0;
    for (size_t p = 0; p < rows.size(); ++p) {
      largest = std::max(largest, LargestError(weights[p].experts, rows[p].experts));
      EXPECT_LE(LargestError(weights[p].backbone, rows[p].backbone), 1e-5);
    }
    EXPECT_LE(largest, 1e-5);
    // Not bit for bit: the sums are fixed-point numbers.
    std::printf("%s: largest relative difference of expert weights after %d steps: %.2e\n",
                GetParam(), steps, largest);
  }
}

// No gradient is made of it, none below the lowest experts, and none counts for the clip, which is
// therefore off here.
TEST_P(Families, AFrozenBackboneTrainsWhatOneAtARateOfZeroTrains) {
  for (const bool rows : {false, true}) {
    Recipe recipe =
        WeightsRecipe(GetParam(), {PartMode::kFrozen, PartMode::kFrozen, PartMode::kPrivate});
    if (rows) recipe.weights.reset();
    recipe.run.max_grad_norm = 0;
    recipe.run.gradient_checkpointing = rows;
    const auto start =
        *train::PartyModel::Create(recipe.config, recipe.run, model::AllExperts(recipe.config));
    const auto frozen = RunParties(recipe, LoopbackChannels(recipe.parties));
    recipe.modes.blocks = PartMode::kPrivate;
    recipe.run.private_lr_scale = 0;
    const auto slow = RunParties(recipe, LoopbackChannels(recipe.parties));
    ExpectOk(frozen);
    ExpectOk(slow);
    const Weights before = BackboneWeights(*start);
    const Weights experts_before = ExpertWeights(*start);
    for (size_t p = 0; p < frozen.size(); ++p) {
      EXPECT_EQ(frozen[p].losses, slow[p].losses);
      EXPECT_THAT(Differences(frozen[p].experts, slow[p].experts), IsEmpty());
      EXPECT_THAT(Differences(frozen[p].backbone, slow[p].backbone), IsEmpty());
      EXPECT_THAT(Differences(frozen[p].backbone, before),
                  testing::UnorderedElementsAre("lm_head.weight", "model.norm.weight"));
      for (const auto& [name, tensor] : frozen[p].experts) {
        EXPECT_FALSE(at::equal(tensor, experts_before.at(name))) << name;
      }
    }
  }
}

// One process with the whole model and everybody's micro-batches, in the order of the parties.
struct Central {
  std::vector<double> losses;
  Weights weights;
};

Central RunCentral(const Recipe& recipe) {
  auto model = *train::PartyModel::Create(recipe.config, recipe.run, AllExperts(recipe.config));
  model::LocalExperts experts(model->shard());
  Central central;
  for (int64_t step = 0; step < recipe.steps; ++step) {
    const train::StepPlan plan = recipe.PlanOf(step);
    std::vector<model::MicroBatch> batches;
    int64_t tokens = 0;
    for (int party = 0; party < recipe.parties; ++party) {
      for (model::MicroBatch& batch : recipe.BatchesOf(party, step)) {
        tokens += CountLossTokens(batch, false);
        batches.push_back(std::move(batch));
      }
    }
    EXPECT_TRUE(experts.BeginPass({}).ok());
    model->backbone().ResetGradients();
    const auto result = model->backbone().ForwardBackward(
        batches, experts, 1 / static_cast<double>(tokens), {.own = plan.balance_coef});
    EXPECT_TRUE(result.ok());
    central.losses.push_back(result->loss_sum / static_cast<double>(tokens));
    const double norm = std::sqrt(model->GradientSumOfSquares(true));
    model->Step(plan.learning_rate, optim::ClipFactor(norm, plan.max_grad_norm), true);
  }
  central.weights = ExpertWeights(*model);
  central.weights.merge(BackboneWeights(*model));
  return central;
}

double FederationLoss(const Recipe& recipe, const std::vector<Outcome>& outcomes, size_t step) {
  double sum = 0;
  double tokens = 0;
  for (int party = 0; party < recipe.parties; ++party) {
    int64_t own = 0;
    for (const auto& batch : recipe.BatchesOf(party, static_cast<int64_t>(step))) {
      own += CountLossTokens(batch, false);
    }
    sum += outcomes[static_cast<size_t>(party)].losses[step] * static_cast<double>(own);
    tokens += static_cast<double>(own);
  }
  return sum / tokens;
}

// Largest relative difference of the loss from that of one process.
double LargestLossError(const Recipe& recipe, const std::vector<Outcome>& outcomes,
                        const Central& central) {
  double largest = 0;
  for (size_t step = 0; step < central.losses.size(); ++step) {
    const double loss = FederationLoss(recipe, outcomes, step);
    largest = std::max(largest, std::abs(loss - central.losses[step]) / central.losses[step]);
  }
  return largest;
}

TEST_P(Families, AllAggregatedTrainsWhatOneProcessTrains) {
  Recipe recipe = WeightsRecipe(GetParam(), kAggregated);
  recipe.steps = 200;
  const auto outcomes = RunParties(recipe, LoopbackChannels(recipe.parties));
  ExpectOk(outcomes);
  const Central central = RunCentral(recipe);
  const double largest = LargestLossError(recipe, outcomes, central);
  EXPECT_LE(largest, 1e-4);
  std::printf("%s: largest relative difference of the loss over 200 steps: %.2e\n", GetParam(),
              largest);
  EXPECT_LT(central.losses.back(), central.losses.front() - 0.3);  // it has learned
  // Every unit is held once, so all parties have one model.
  size_t held = 0;
  for (const Outcome& outcome : outcomes) held += outcome.experts.size() + outcome.backbone.size();
  EXPECT_EQ(held, central.weights.size());
}

TEST(AllAggregated, WithATiedHeadTrainsWhatOneProcessTrains) {
  Recipe recipe = WeightsRecipe("olmoe", kAggregated);
  recipe.config.tie_word_embeddings = true;
  recipe.steps = 40;
  const auto outcomes = RunParties(recipe, LoopbackChannels(recipe.parties));
  ExpectOk(outcomes);
  EXPECT_LE(LargestLossError(recipe, outcomes, RunCentral(recipe)), 1e-4);
}

TEST(AllAggregated, WithUnevenShardsAndOtherNumbersOfParties) {
  for (const int parties : {3, 5}) {
    Recipe recipe = WeightsRecipe("qwen2_moe", kAggregated);
    recipe.parties = parties;
    recipe.owners = {{1, 1, 2, 1, 2, 2, 1, 1}};  // party a owns no expert
    recipe.steps = 30;
    const auto outcomes = RunParties(recipe, LoopbackChannels(parties));
    ExpectOk(outcomes);
    EXPECT_LE(LargestLossError(recipe, outcomes, RunCentral(recipe)), 1e-4) << parties;
  }
}

TEST_P(Families, NoBitDependsOnTimingChannelRecomputeOrFetchingAgain) {
  Recipe recipe = WeightsRecipe(GetParam(), kDefault);
  recipe.steps = 6;
  const auto outcomes = RunParties(recipe, LoopbackChannels(recipe.parties));
  const transport::TestParties parties(recipe.parties);
  ExpectSameBits(outcomes, RunParties(recipe, GrpcChannels(parties, recipe.parties)));
  recipe.weights->recompute = recipe.run.gradient_checkpointing = true;
  recipe.weights->keep_fetched = true;
  auto mesh = transport::LoopbackMesh::Create(recipe.parties, {});
  for (int from = 0; from < recipe.parties; ++from) {
    for (int to = 0; to < recipe.parties; ++to) {
      if (from != to) mesh->SetDelay(from, to, absl::Microseconds(300 * from + 700 * to));
    }
  }
  std::vector<std::unique_ptr<transport::Channel>> channels;
  for (int party = 0; party < recipe.parties; ++party) channels.push_back(mesh->Open(party));
  ExpectSameBits(outcomes, RunParties(recipe, std::move(channels)));
}

INSTANTIATE_TEST_SUITE_P(All, Families, testing::Values("olmoe", "qwen2_moe"));

// The owner computes with its own weights, the others with rounded ones: not the same run, a near
// one.
TEST(Weights, Int8OnTheWireLearnsNearlyTheSame) {
  Recipe recipe = WeightsRecipe("olmoe", kAggregated);
  recipe.steps = 100;
  const auto exact = RunParties(recipe, LoopbackChannels(recipe.parties));
  recipe.weights->int8 = true;
  const auto rounded = RunParties(recipe, LoopbackChannels(recipe.parties));
  ExpectOk(exact);
  ExpectOk(rounded);
  const double first = FederationLoss(recipe, exact, 0);
  const double last = FederationLoss(recipe, exact, 99);
  const double last_rounded = FederationLoss(recipe, rounded, 99);
  std::printf("loss %.4f, after 100 steps %.4f; int8 on the wire %.4f\n", first, last,
              last_rounded);
  EXPECT_NE(last, last_rounded);
  EXPECT_NEAR(last, last_rounded, 0.03 * (first - last));
}

TEST(Weights, FrozenPartsStayAndPrivatePartsDiffer) {
  Recipe recipe = WeightsRecipe("olmoe", kDefault);
  recipe.steps = 3;
  const auto outcomes = RunParties(recipe, LoopbackChannels(recipe.parties));
  ExpectOk(outcomes);
  const auto start =
      *train::PartyModel::Create(recipe.config, recipe.run, AllExperts(recipe.config));
  const Weights before = BackboneWeights(*start);
  const auto at = [](const Outcome& outcome, const char* name) {
    return outcome.backbone.at(name);
  };
  for (const Outcome& outcome : outcomes) {
    EXPECT_TRUE(
        at(outcome, "model.embed_tokens.weight").equal(before.at("model.embed_tokens.weight")));
    EXPECT_FALSE(at(outcome, "lm_head.weight").equal(before.at("lm_head.weight")));
  }
  EXPECT_FALSE(at(outcomes[0], "lm_head.weight").equal(at(outcomes[1], "lm_head.weight")));
}

// Micro-batches for 64 x 2 rows a layer and party: with a bound of many more, gradients wait.
TEST(Weights, FewRowsWaitUntilTheyAreMany) {
  Recipe recipe = WeightsRecipe("olmoe", kAggregated);
  recipe.run.max_grad_norm = 0;
  recipe.weights->min_rows = 1 << 30;
  recipe.steps = 3;
  const auto never = RunParties(recipe, LoopbackChannels(recipe.parties));
  ExpectOk(never);
  const auto start =
      *train::PartyModel::Create(recipe.config, recipe.run, AllExperts(recipe.config));
  const Weights before = ExpertWeights(*start);
  for (const Outcome& outcome : never) {
    // Weight decay alone moves an expert: 2e-3 * 0.01 a step.
    EXPECT_LE(LargestError(outcome.experts, before), 3 * 2.1e-5);
  }
  // 7 micro-batches of 32 tokens with two choices: 448 rows a layer and step, 56 an expert.
  recipe.weights->min_rows = 100;
  const auto sometimes = RunParties(recipe, LoopbackChannels(recipe.parties));
  ExpectOk(sometimes);
  double moved = 0;
  for (const Outcome& outcome : sometimes) {
    moved = std::max(moved, LargestError(outcome.experts, before));
  }
  EXPECT_GT(moved, 1e-3);
}

// What a party sent, in its order.
struct Sent {
  int to;
  wire::MessageHeader header;
  std::vector<uint8_t> payload;
};

// Notes what leaves.
class NotingChannel final : public transport::Channel {
 public:
  NotingChannel(std::unique_ptr<transport::Channel> inner, std::vector<Sent>& sent)
      : inner_(std::move(inner)), sent_(sent) {}
  int parties() const override { return inner_->parties(); }
  wire::PartyIndex self() const override { return inner_->self(); }
  absl::Status Send(wire::Sealed message, absl::Time deadline) override {
    const auto bytes = message.payload().bytes();
    sent_.push_back({message.to(), message.header(), {bytes.begin(), bytes.end()}});
    return inner_->Send(std::move(message), deadline);
  }
  std::optional<transport::Event> Next(absl::Time deadline) override {
    return inner_->Next(deadline);
  }
  void Drop(wire::PartyIndex peer, const absl::Status& why) override { inner_->Drop(peer, why); }
  absl::Status PeerStatus(wire::PartyIndex peer) const override { return inner_->PeerStatus(peer); }
  transport::Traffic TrafficWith(wire::PartyIndex peer) const override {
    return inner_->TrafficWith(peer);
  }
  void Close(absl::Time deadline) override { inner_->Close(deadline); }

 private:
  std::unique_ptr<transport::Channel> inner_;
  std::vector<Sent>& sent_;
};

std::vector<std::vector<Sent>> Transcripts(const Recipe& recipe) {
  std::vector<std::vector<Sent>> sent(static_cast<size_t>(recipe.parties));
  auto inner = LoopbackChannels(recipe.parties);
  std::vector<std::unique_ptr<transport::Channel>> channels;
  for (size_t p = 0; p < inner.size(); ++p) {
    channels.push_back(std::make_unique<NotingChannel>(std::move(inner[p]), sent[p]));
  }
  ExpectOk(RunParties(recipe, std::move(channels)));
  return sent;
}

TEST(Transcripts, OfTwoRunsWithOtherDataDifferInMaskedPayloadsAndResultsOnly) {
  Recipe recipe = WeightsRecipe("olmoe", kDefault);
  recipe.weights->min_rows = 100;  // whether an expert is held must not be seen in lengths
  recipe.steps = 4;
  const auto first = Transcripts(recipe);
  recipe.data_seed = 77;
  const auto second = Transcripts(recipe);
  std::set<std::string> different;
  for (size_t p = 0; p < first.size(); ++p) {
    ASSERT_EQ(first[p].size(), second[p].size());
    for (size_t i = 0; i < first[p].size(); ++i) {
      const Sent& a = first[p][i];
      const Sent& b = second[p][i];
      ASSERT_EQ(a.to, b.to) << "party " << p << " message " << i;
      ASSERT_EQ(a.header, b.header) << "party " << p << " message " << i;
      ASSERT_EQ(a.payload.size(), b.payload.size());
      if (a.payload != b.payload) different.insert(std::string(NameOf(a.header.kind)));
    }
  }
  // Keys are fresh, shares and counts are masked; exponents, votes and weights are what the
  // protocol tells everybody.
  const std::set<std::string> allowed{"mask_key", "masked_gradients", "masked_counts", "exponents",
                                      "vote",     "unit_weights"};
  EXPECT_TRUE(std::includes(allowed.begin(), allowed.end(), different.begin(), different.end()));
  EXPECT_TRUE(different.contains("masked_gradients"));
}

}  // namespace
}  // namespace pcmoe::testing_federation
