// bench/remote_layer.cc: one MoE layer whose experts are all in another process: forward, backward,
// weight gradients and AdamW at the owner, over gRPC with mutual TLS. Prints rows per second of the
// home party. Usage: remote_layer ROWS TOP_K EXPERTS_USED SECONDS
#include <ATen/Parallel.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/randn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "pcmoe/exchange/rows/rows_provider.h"
#include "pcmoe/model/router.h"
#include "pcmoe/optim/adamw.h"
#include "pcmoe/transport/grpc_channel.h"
#include "pcmoe/transport/test_parties.h"

namespace pcmoe {
namespace {

constexpr int64_t kWidth = 256;
constexpr int64_t kExperts = 8;
// Three matrices of 256 x 704: as many weights as hivemind's two of 256 x 1024, and a little more.
constexpr int64_t kExpertWidth = 704;
constexpr int kOwner = 1;

model::ModelConfig Config(int64_t top_k) {
  model::ModelConfig config;
  config.hidden_size = kWidth;
  config.expert_size = kExpertWidth;
  config.num_layers = 1;
  config.num_experts = kExperts;
  config.experts_per_token = top_k;
  config.sparse_layers = {true};
  config.num_heads = config.num_kv_heads = 4;
  config.head_dim = 64;
  config.vocab_size = 32;
  return config;
}

// One party's side, put together as cli/party_run.cc does.
struct Party {
  Party(const transport::TestParties& parties, int self, int64_t top_k)
      : config(Config(top_k)),
        map(config, *federation::Placement::Create({std::vector<uint32_t>(kExperts, kOwner)}, 1,
                                                   kExperts, 2)),
        channel(*transport::CreateGrpcChannel(parties.Options(self))),
        gate({.allow_readable_rows = true}, nullptr),
        session(channel.get(), &gate, {.names = {"home", "owner"}}) {
    model::ExpertParameters own = model::EmptyExperts(config, map.SelectionOf(self));
    model::Initialise(config, 1, own);
    shard = std::make_unique<model::ExpertShard>(config, own, model::ExpertShard::Options{});
    owned = std::make_unique<exchange::OwnedExperts>(config, map, *shard, session, 1 << 20);
    std::vector<wire::PartyIndex> up;
    while (up.empty()) session.WaitForAnything(absl::InfiniteFuture(), up);
  }
  model::ModelConfig config;
  exchange::ExpertMap map;
  std::unique_ptr<transport::Channel> channel;
  border::EgressGate gate;
  exchange::Session session;
  std::unique_ptr<model::ExpertShard> shard;
  std::unique_ptr<exchange::OwnedExperts> owned;
};

void Check(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "remote_layer: %s\n", std::string(status.message()).c_str());
  std::_Exit(1);
}

void RunOwner(const transport::TestParties& parties, int64_t top_k) {
  Party party(parties, kOwner, top_k);
  std::vector<optim::Trainable> trainables;
  for (size_t l = 0; l < 1; ++l) {
    trainables.push_back(
        {party.shard->weights()[l].gate_up_efd, party.shard->gradients()[l].gate_up_efd, true});
    trainables.push_back(
        {party.shard->weights()[l].down_edf, party.shard->gradients()[l].down_edf, true});
  }
  optim::AdamW adamw(std::move(trainables), {});
  for (uint64_t step = 0;; ++step) {
    if (!party.session.EnterStep(step, 1).ok()) break;
    if (!party.owned->BeginPass({1, 0}, true).ok()) break;
    if (!party.owned->FinishPass().ok()) break;  // the home party left: the measurement is over
    adamw.Step(1e-4, 1.0);
    party.shard->RefreshComputeWeights();
  }
  std::_Exit(0);
}

double RunHome(const transport::TestParties& parties, int64_t rows, int64_t top_k,
               int64_t experts_used, double seconds) {
  Party party(parties, 0, top_k);
  exchange::RowsProvider provider(*party.owned, party.session, {});
  const at::Tensor h_td = at::randn({rows, kWidth});
  at::Tensor logits = at::randn({rows, kExperts});
  if (experts_used < kExperts) logits.narrow(1, experts_used, kExperts - experts_used).fill_(-1e4);
  const model::Routing routing = model::Route(party.config, logits).routing;
  uint64_t step = 0;
  const auto pass = [&] {
    Check(party.session.EnterStep(step++, 1));
    Check(provider.BeginPass({.micro_batches_p = {1, 0}}));
    Check(provider.BeginForward(0));
    Check(provider.Dispatch(0, 0, h_td, routing));
    const auto y = provider.Combine(0, 0);
    Check(y.status());
    Check(provider.BeginBackward(0));
    Check(provider.DispatchGradient(0, 0, at::ones_like(*y)));
    Check(provider.CombineGradient(0, 0).status());
    Check(provider.EndBackward(0));
    Check(provider.FinishPass());
  };
  for (int i = 0; i < 10; ++i) pass();
  const absl::Time begin = absl::Now();
  int64_t passes = 0;
  while (absl::Now() - begin < absl::Seconds(seconds)) {
    pass();
    ++passes;
  }
  return static_cast<double>(passes * rows) / absl::ToDoubleSeconds(absl::Now() - begin);
}

}  // namespace
}  // namespace pcmoe

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fprintf(stderr, "usage: remote_layer ROWS TOP_K EXPERTS_USED SECONDS\n");
    return 4;
  }
  at::set_num_threads(1);
  const pcmoe::transport::TestParties parties(2);
  const int64_t top_k = std::atoll(argv[2]);
  const pid_t owner = ::fork();
  if (owner == 0) pcmoe::RunOwner(parties, top_k);
  const double rows_per_s =
      pcmoe::RunHome(parties, std::atoll(argv[1]), top_k, std::atoll(argv[3]), std::atof(argv[4]));
  std::printf("{\"rows_per_s\": %.1f}\n", rows_per_s);
  std::fflush(stdout);
  ::kill(owner, SIGKILL);
  ::waitpid(owner, nullptr, 0);
  std::_Exit(0);
}
