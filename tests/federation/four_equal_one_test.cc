// tests/federation/four_equal_one_test.cc: four parties train what one process trains in which each
// party's tokens pass through a copy of its own backbone; over either channel, bit for bit the
// same.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "party_threads.h"
#include "pcmoe/model/local_experts.h"
#include "pcmoe/optim/norm.h"
#include "pcmoe/transport/loopback.h"

namespace pcmoe::testing_federation {
namespace {

using testing::IsEmpty;

std::vector<int64_t> NoExperts(int64_t) { return {}; }

// The slow, readable truth: one thread, one shard with every expert, a backbone per party.
class Reference {
 public:
  explicit Reference(const Recipe& recipe) : recipe_(recipe) {
    whole_ = *train::PartyModel::Create(recipe.config, recipe.run, AllExperts(recipe_.config));
    for (int party = 0; party < recipe.parties; ++party) {
      parties_.push_back(*train::PartyModel::Create(recipe.config, recipe.run, NoExperts));
    }
    outcomes_.resize(parties_.size());
  }

  void Step(int64_t step) {
    const train::StepPlan plan = recipe_.PlanOf(step);
    std::vector<std::vector<model::MicroBatch>> batches;
    std::vector<double> tokens;
    double all_tokens = 0;
    for (int party = 0; party < recipe_.parties; ++party) {
      batches.push_back(recipe_.BatchesOf(party, step));
      tokens.push_back(0);
      for (const auto& batch : batches.back()) {
        tokens.back() += static_cast<double>(CountLossTokens(batch, false));
      }
      all_tokens += tokens.back();
    }
    double squares = 0;
    for (size_t p = 0; p < parties_.size(); ++p) {
      model::LocalExperts experts(whole_->shard(), static_cast<int>(p));
      experts.SetOwnsShard(false);
      ASSERT_TRUE(experts.BeginPass({}).ok());
      const auto result = parties_[p]->backbone().ForwardBackward(
          batches[p], experts, 1 / all_tokens, {.own = plan.balance_coef * tokens[p] / all_tokens});
      ASSERT_TRUE(result.ok());
      outcomes_[p].losses.push_back(result->loss_sum / std::max(tokens[p], 1.0));
      if (tokens[p] > 0) squares += parties_[p]->GradientSumOfSquares(true);
    }
    for (int64_t layer = 0; layer < recipe_.config.num_layers; ++layer) {
      if (recipe_.config.sparse_layers[static_cast<size_t>(layer)])
        whole_->shard().FinishLayer(layer);
    }
    squares += whole_->GradientSumOfSquares(false);
    const double norm = std::sqrt(squares);
    norms_.push_back(norm);
    const double clip = optim::ClipFactor(norm, plan.max_grad_norm);
    whole_->Step(plan.learning_rate, clip, false);
    for (size_t p = 0; p < parties_.size(); ++p) {
      parties_[p]->Step(plan.learning_rate, clip, tokens[p] > 0);
    }
  }

  const std::vector<double>& losses(size_t party) const { return outcomes_[party].losses; }
  const std::vector<double>& norms() const { return norms_; }
  Weights experts() { return ExpertWeights(*whole_); }
  Weights backbone(size_t party) { return BackboneWeights(*parties_[party]); }

 private:
  const Recipe recipe_;
  std::unique_ptr<train::PartyModel> whole_;
  std::vector<std::unique_ptr<train::PartyModel>> parties_;
  std::vector<Outcome> outcomes_;
  std::vector<double> norms_;
};

void ExpectNear(const Weights& got, const Weights& want, const std::string& what) {
  for (const auto& [name, tensor] : got) {
    ASSERT_TRUE(want.contains(name)) << name;
    // Adding one vector to all keys hardly changes softmax: its gradient is what rounding left
    // over.
    if (name.ends_with("k_proj.bias")) continue;
    const double bound = 1e-5 * want.at(name).abs().max().item<double>();
    const double error = (tensor - want.at(name)).abs().max().item<double>();
    EXPECT_LE(error, bound) << what << " " << name;
  }
}

void ExpectOk(const std::vector<Outcome>& outcomes) {
  for (const Outcome& outcome : outcomes) ASSERT_TRUE(outcome.status.ok()) << outcome.status;
}

void ExpectSameBits(const std::vector<Outcome>& a, const std::vector<Outcome>& b) {
  for (size_t p = 0; p < a.size(); ++p) {
    EXPECT_THAT(Differences(a[p].experts, b[p].experts), IsEmpty());
    EXPECT_THAT(Differences(a[p].backbone, b[p].backbone), IsEmpty());
    EXPECT_EQ(a[p].losses, b[p].losses);
    EXPECT_EQ(a[p].grad_norms, b[p].grad_norms);
  }
}

void ExpectEqualsReference(const Recipe& recipe, const std::vector<Outcome>& outcomes) {
  ExpectOk(outcomes);
  Reference reference(recipe);
  const Weights start = reference.experts();
  for (int64_t step = 0; step < recipe.steps; ++step) reference.Step(step);
  const Weights experts = reference.experts();
  EXPECT_EQ(Differences(start, experts).size(), experts.size());  // every expert has learned
  size_t owned = 0;
  for (size_t p = 0; p < outcomes.size(); ++p) {
    ExpectNear(outcomes[p].experts, experts, "expert");
    ExpectNear(outcomes[p].backbone, reference.backbone(p), "backbone");
    owned += outcomes[p].experts.size();
    for (size_t step = 0; step < outcomes[p].losses.size(); ++step) {
      const double want = reference.losses(p)[step];
      EXPECT_NEAR(outcomes[p].losses[step], want, 1e-5 * want) << "party " << p << " step " << step;
      EXPECT_NEAR(outcomes[p].grad_norms[step], reference.norms()[step],
                  1e-5 * reference.norms()[step]);
      EXPECT_GT(reference.norms()[step], recipe.run.max_grad_norm);  // the clip was at work
    }
  }
  EXPECT_EQ(owned, experts.size());
}

class FourEqualOne : public testing::TestWithParam<std::tuple<const char*, bool>> {
 protected:
  FourEqualOne() { at::set_num_threads(1); }
  static Recipe TheRecipe() {
    Recipe recipe = SmallRecipe(std::get<0>(GetParam()));
    recipe.round_robin = std::get<1>(GetParam());
    return recipe;
  }
};

TEST_P(FourEqualOne, OverLoopback) {
  const Recipe recipe = TheRecipe();
  ExpectEqualsReference(recipe, RunParties(recipe, LoopbackChannels(recipe.parties)));
}

TEST_P(FourEqualOne, OverGrpcWithCertificatesBitForBitAsLoopback) {
  const Recipe recipe = TheRecipe();
  const transport::TestParties parties(recipe.parties);
  const auto outcomes = RunParties(recipe, GrpcChannels(parties, recipe.parties));
  ExpectEqualsReference(recipe, outcomes);
  ExpectSameBits(outcomes, RunParties(recipe, LoopbackChannels(recipe.parties)));
}

TEST_P(FourEqualOne, RecomputeAndDelaysChangeNoBit) {
  Recipe recipe = TheRecipe();
  const auto outcomes = RunParties(recipe, LoopbackChannels(recipe.parties));
  ExpectOk(outcomes);
  recipe.run.gradient_checkpointing = true;
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

INSTANTIATE_TEST_SUITE_P(Recipes, FourEqualOne,
                         testing::Combine(testing::Values("olmoe", "qwen2_moe"), testing::Bool()),
                         [](const auto& each) {
                           return std::string(std::get<0>(each.param)) +
                                  (std::get<1>(each.param) ? "_round_robin" : "_synchronous");
                         });

TEST(UnevenShards, EqualTheReferenceToo) {
  at::set_num_threads(1);
  Recipe recipe = SmallRecipe("olmoe");
  recipe.owners = {{1, 1, 3, 1, 3, 2, 1, 1}};  // party a owns nothing
  ExpectEqualsReference(recipe, RunParties(recipe, LoopbackChannels(recipe.parties)));
}

}  // namespace
}  // namespace pcmoe::testing_federation
