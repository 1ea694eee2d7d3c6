// pcmoe/exchange/rows/rows_provider_test.cc: experts at other parties compute what experts at home
// do.
#include "pcmoe/exchange/rows/rows_provider.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <thread>

#include "pcmoe/model/router.h"
#include "pcmoe/transport/loopback.h"

namespace pcmoe::exchange {
namespace {

constexpr int kParties = 3;
constexpr int64_t kTokens = 70;

model::ModelConfig Config() {
  model::ModelConfig config;
  config.hidden_size = 16;
  config.expert_size = 24;
  config.num_layers = 1;
  config.num_experts = 7;
  config.experts_per_token = 3;
  config.sparse_layers = {true};
  config.vocab_size = 32;
  config.num_heads = config.num_kv_heads = 2;
  config.head_dim = 8;
  return config;
}

// What one party brings, and what it gets back.
struct Case {
  at::Tensor h_td, dy_td;
  model::Routing routing;
  at::Tensor y_td;
  model::ExpertInputGradients gradients;
};

std::vector<Case> Cases(const model::ModelConfig& config) {
  std::vector<Case> cases;
  for (int party = 0; party < kParties; ++party) {
    cases.push_back({.h_td = at::randn({kTokens, 16}),
                     .dy_td = at::randn({kTokens, 16}),
                     .routing = model::Route(config, at::randn({kTokens, 7})).routing});
  }
  return cases;
}

void RunLayer(model::ExpertProvider& provider, Case& one) {
  ASSERT_TRUE(provider.BeginPass({.micro_batches_p = std::vector<int64_t>(kParties, 1)}).ok());
  ASSERT_TRUE(provider.BeginForward(0).ok());
  ASSERT_TRUE(provider.Dispatch(0, 0, one.h_td, one.routing).ok());
  one.y_td = *provider.Combine(0, 0);
  ASSERT_TRUE(provider.BeginBackward(0).ok());
  ASSERT_TRUE(provider.DispatchGradient(0, 0, one.dy_td).ok());
  one.gradients = *provider.CombineGradient(0, 0);
  ASSERT_TRUE(provider.EndBackward(0).ok());
  ASSERT_TRUE(provider.FinishPass().ok());
}

void ExpectNear(const at::Tensor& got, const at::Tensor& want) {
  const double bound = 1e-5 * want.abs().max().item<double>();
  EXPECT_LE((got - want).abs().max().item<double>(), bound);
}

// Three parties with uneven shards (one owns nothing) against one shard with all experts.
TEST(RowsProviderTest, ForwardBackwardAndWeightGradientsEqualTheLocalExperts) {
  at::set_num_threads(1);
  const model::ModelConfig config = Config();
  const auto placement = federation::Placement::Create({{0, 0, 1, 0, 1, 0, 0}}, 1, 7, kParties);
  ASSERT_TRUE(placement.ok());
  const ExpertMap map(config, *placement);
  std::vector<Case> remote = Cases(config);
  std::vector<Case> local = remote;

  model::ExpertParameters all = model::EmptyExperts(config, model::AllExperts(config));
  model::Initialise(config, 5, all);
  model::ExpertShard whole(config, all, {});
  for (int party = 0; party < kParties; ++party) {
    model::LocalExperts experts(whole, party);
    experts.SetOwnsShard(false);
    RunLayer(experts, local[static_cast<size_t>(party)]);
  }
  whole.FinishLayer(0);

  auto channels = transport::MakeLoopback(kParties);
  std::vector<std::unique_ptr<model::ExpertShard>> shards;
  for (int party = 0; party < kParties; ++party) {
    model::ExpertParameters own = model::EmptyExperts(config, map.SelectionOf(party));
    model::Initialise(config, 5, own);
    shards.push_back(
        std::make_unique<model::ExpertShard>(config, own, model::ExpertShard::Options{}));
  }
  std::vector<std::thread> threads;
  for (int party = 0; party < kParties; ++party) {
    threads.emplace_back([&, party] {
      const auto p = static_cast<size_t>(party);
      border::EgressGate gate({.allow_readable_rows = true}, nullptr);
      Session session(channels[p].get(), &gate, {.names = {"a", "b", "c"}});
      OwnedExperts owned(config, map, *shards[p], session, 1000);
      RowsProvider provider(owned, session, {});
      std::vector<wire::PartyIndex> up;
      while (up.size() < kParties - 1) session.WaitForAnything(absl::InfiniteFuture(), up);
      ASSERT_TRUE(session.EnterStep(0, 1).ok());
      RunLayer(provider, remote[p]);
    });
  }
  for (std::thread& thread : threads) thread.join();

  for (size_t p = 0; p < kParties; ++p) {
    ExpectNear(remote[p].y_td, local[p].y_td);
    ExpectNear(remote[p].gradients.dh_td, local[p].gradients.dh_td);
    ExpectNear(remote[p].gradients.dweights_tk, local[p].gradients.dweights_tk);
    const model::ExpertLayerParameters& own = shards[p]->gradients()[0];
    for (size_t i = 0; i < own.expert_ids.size(); ++i) {
      ExpectNear(own.gate_up_efd[static_cast<int64_t>(i)],
                 whole.gradients()[0].gate_up_efd[own.expert_ids[i]]);
      ExpectNear(own.down_edf[static_cast<int64_t>(i)],
                 whole.gradients()[0].down_edf[own.expert_ids[i]]);
    }
  }
}

}  // namespace
}  // namespace pcmoe::exchange
