// pcmoe/model/step_bench.cc: whole central training steps (forward, backward, optimizer left out).
// Arguments: 0: fp32, 1: bf16. The shape is that of the figures hf_fp32 and hf_best.
#include <ATen/Parallel.h>
#include <ATen/ops/randint.h>
#include <benchmark/benchmark.h>

#include "pcmoe/model/backbone.h"
#include "pcmoe/model/bench_config.h"
#include "pcmoe/model/local_experts.h"

namespace pcmoe::model {
namespace {

void BM_Step(benchmark::State& state) {
  at::set_num_threads(2);
  const at::ScalarType dtype = state.range(0) == 0 ? at::kFloat : at::kBFloat16;
  const ModelConfig config = BenchConfig();
  BackboneParameters weights = EmptyBackbone(config);
  ExpertParameters experts = EmptyExperts(config, AllExperts(config));
  Initialise(config, 1, weights);
  Initialise(config, 1, experts);
  Backbone backbone(config, std::move(weights), {.compute_dtype = dtype});
  ExpertShard shard(config, std::move(experts), {.compute_dtype = dtype});
  LocalExperts local(shard);
  std::vector<MicroBatch> batches;
  for (int64_t m = 0; m < state.range(1); ++m) {
    const at::Tensor tokens = at::randint(8192, {8 / state.range(1), 256}, at::kLong);
    batches.push_back({tokens, tokens, {}});
  }
  for (auto _ : state) {
    backbone.ResetGradients();
    const absl::Status begun = local.BeginPass({.micro_batches_p = {state.range(1)}});
    const auto result = backbone.ForwardBackward(batches, local, 1.0 / 2040, {.own = 0.01});
    if (!begun.ok() || !result.ok()) state.SkipWithError("step failed");
    backbone.RefreshComputeWeights();
    shard.RefreshComputeWeights();
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations()) * 2048);  // tokens
}
BENCHMARK(BM_Step)->ArgsProduct({{0, 1}, {1, 2}})->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace pcmoe::model
