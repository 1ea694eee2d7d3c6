// bench/eval_speed.cc: measures the figure `eval_speed`: tokens a second of an evaluation's pass,
// and of the same layers' forward within a training step.
//
// eval_speed evaluate|train: classification rows, one token of each has loss, so that the head is
// small in both; prints {"tokens_s": ..} of the best of several passes.
#include <ATen/Parallel.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/randint.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string_view>

#include "pcmoe/model/backbone.h"
#include "pcmoe/model/bench_config.h"
#include "pcmoe/model/local_experts.h"

namespace {

using namespace pcmoe;  // NOLINT: a program of one page

constexpr int64_t kRows = 32, kLength = 64, kBatches = 4, kPasses = 12;

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Experts at home; notes when the first layer's backward begins to wait for the balance loss, that
// is, when the forward and the head are done.
class Watched final : public model::ExpertProvider {
 public:
  explicit Watched(model::LocalExperts& experts) : experts_(experts) {}
  absl::Status BeginForward(int64_t layer) override { return experts_.BeginForward(layer); }
  absl::Status Dispatch(int64_t layer, int64_t micro_batch, const at::Tensor& h_td,
                        const model::Routing& routing) override {
    return experts_.Dispatch(layer, micro_batch, h_td, routing);
  }
  absl::StatusOr<at::Tensor> Combine(int64_t layer, int64_t micro_batch) override {
    return experts_.Combine(layer, micro_batch);
  }
  absl::StatusOr<std::optional<model::FederationLoad>> AwaitFederationLoad() override {
    forward_done_ = Now();
    return std::nullopt;
  }
  absl::Status BeginBackward(int64_t layer) override { return experts_.BeginBackward(layer); }
  absl::Status DispatchGradient(int64_t layer, int64_t micro_batch,
                                const at::Tensor& dy_td) override {
    return experts_.DispatchGradient(layer, micro_batch, dy_td);
  }
  absl::StatusOr<model::ExpertInputGradients> CombineGradient(int64_t layer,
                                                              int64_t micro_batch) override {
    return experts_.CombineGradient(layer, micro_batch);
  }
  absl::Status EndBackward(int64_t layer) override { return experts_.EndBackward(layer); }
  absl::Status BeginPass(const model::PassPlan& plan) override { return experts_.BeginPass(plan); }
  absl::Status FinishPass() override { return experts_.FinishPass(); }
  void Reset() override { experts_.Reset(); }
  double forward_done() const { return forward_done_; }

 private:
  model::LocalExperts& experts_;
  double forward_done_ = 0;
};

int Measure(bool training) {
  at::set_num_threads(1);
  const model::ModelConfig config = model::BenchConfig();
  model::BackboneParameters weights = model::EmptyBackbone(config);
  model::ExpertParameters experts = model::EmptyExperts(config, model::AllExperts(config));
  model::Initialise(config, 1, weights);
  model::Initialise(config, 1, experts);
  model::Backbone backbone(config, std::move(weights), {.compute_dtype = at::kFloat});
  model::ExpertShard shard(config, std::move(experts), {.compute_dtype = at::kFloat});
  model::LocalExperts local(shard);
  Watched watched(local);
  std::vector<model::MicroBatch> batches;
  for (int64_t m = 0; m < kBatches; ++m) {
    const at::Tensor tokens = at::randint(8192, {kRows, kLength}, at::kLong);
    at::Tensor labels = at::full_like(tokens, -1);
    labels.select(1, kLength - 1).copy_(tokens.select(1, kLength - 1));
    batches.push_back({tokens, labels, {}});
  }
  double best = 0;
  for (int64_t pass = 0; pass < kPasses; ++pass) {
    backbone.ResetGradients();
    const double begin = Now();
    absl::Status status =
        watched.BeginPass({.micro_batches_p = {kBatches}, .sweeps_p = {1}, .training = training});
    if (!status.ok()) return 1;
    double end = 0;
    if (training) {
      if (!backbone.ForwardBackward(batches, watched, 1e-3, {.own = 0.01}).ok()) return 1;
      end = watched.forward_done();
    } else {
      if (!backbone.Evaluate(batches, watched).ok()) return 1;
      end = Now();
    }
    if (!watched.FinishPass().ok()) return 1;
    best = std::max(best, static_cast<double>(kBatches * kRows * kLength) / (end - begin));
  }
  std::printf("{\"tokens_s\": %.1f}\n", best);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view side = argc == 2 ? argv[1] : "";
  if (side != "evaluate" && side != "train") {
    std::fprintf(stderr, "usage: eval_speed evaluate|train\n");
    return 4;
  }
  return Measure(side == "train");
}
