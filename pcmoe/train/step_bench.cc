// pcmoe/train/step_bench.cc: pcmoe_step_bench, whole central training steps on random tokens
// (forward, backward, clip, fused AdamW, refresh); prints tokens/s as one JSON line.
// bench/figures/hf_*.py run it.
#include <ATen/Parallel.h>
#include <ATen/ops/randint.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "pcmoe/model/kernels.h"
#include "pcmoe/model/local_experts.h"
#include "pcmoe/optim/norm.h"
#include "pcmoe/tensor/memory.h"
#include "pcmoe/train/party_model.h"

namespace {

using pcmoe::model::MicroBatch;

struct Arguments {
  std::string config;
  std::string precision = "fp32";
  int64_t sequences = 8;
  int64_t length = 256;
  int64_t micro_batches = 2;
  int64_t steps = 10;
  int64_t warmup = 2;
  int threads = 2;
  bool recompute = false;
};

std::vector<MicroBatch> RandomBatches(const Arguments& arguments, int64_t vocabulary) {
  std::vector<MicroBatch> batches;
  for (int64_t m = 0; m < arguments.micro_batches; ++m) {
    const at::Tensor tokens = at::randint(
        vocabulary, {arguments.sequences / arguments.micro_batches, arguments.length}, at::kLong);
    batches.push_back({tokens, tokens, {}});
  }
  return batches;
}

// One step as train::RunStep does it when nobody else is there. Returns the mean loss.
absl::StatusOr<double> Step(std::span<const MicroBatch> batches, double balance_coef,
                            pcmoe::model::LocalExperts& experts, pcmoe::train::PartyModel& model) {
  int64_t loss_tokens = 0;
  for (const MicroBatch& batch : batches) loss_tokens += CountLossTokens(batch, false);
  PCMOE_RETURN_IF_ERROR(
      experts.BeginPass({.micro_batches_p = {static_cast<int64_t>(batches.size())}}));
  PCMOE_ASSIGN_OR_RETURN(
      const pcmoe::model::PassResult result,
      model.backbone().ForwardBackward(batches, experts, 1.0 / static_cast<double>(loss_tokens),
                                       {.own = balance_coef}));
  PCMOE_RETURN_IF_ERROR(experts.FinishPass());
  const double norm = std::sqrt(model.GradientSumOfSquares(true));
  model.Step(1e-4, pcmoe::optim::ClipFactor(norm, 1.0), true);
  return result.loss_sum / static_cast<double>(loss_tokens);
}

absl::StatusOr<nlohmann::json> Run(const Arguments& arguments) {
  PCMOE_ASSIGN_OR_RETURN(const pcmoe::model::ModelConfig config,
                         pcmoe::model::LoadConfig(arguments.config));
  pcmoe::train::RunConfig run;
  run.precision = arguments.precision;
  run.gradient_checkpointing = arguments.recompute;
  PCMOE_ASSIGN_OR_RETURN(
      const std::unique_ptr<pcmoe::train::PartyModel> model,
      pcmoe::train::PartyModel::Create(config, run, pcmoe::model::AllExperts(config)));
  pcmoe::model::LocalExperts experts(model->shard());
  const std::vector<MicroBatch> batches = RandomBatches(arguments, config.vocab_size);
  std::vector<double> seconds;
  double first_loss = 0;
  double loss = 0;
  for (int64_t step = 0; step < arguments.warmup + arguments.steps; ++step) {
    const auto start = std::chrono::steady_clock::now();
    PCMOE_ASSIGN_OR_RETURN(loss, Step(batches, config.router_aux_loss_coef, experts, *model));
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    if (step == 0) first_loss = loss;
    if (step >= arguments.warmup) seconds.push_back(took.count());
  }
  std::sort(seconds.begin(), seconds.end());
  const double median = seconds[seconds.size() / 2];
  const auto tokens = static_cast<double>(arguments.sequences * arguments.length);
  return nlohmann::json{{"tokens_per_s", tokens / median},
                        {"best_tokens_per_s", tokens / seconds.front()},
                        {"step_s", median},
                        {"first_loss", first_loss},
                        {"last_loss", loss},
                        {"cpu", pcmoe::model::kernels::ActiveLevel()},
                        {"peak_tensor_bytes", pcmoe::tensor::PeakAllocatedBytes()}};
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  CLI::App app("Times central training steps on random tokens.");
  app.add_option("--config", arguments.config, "config.json of the model")->required();
  app.add_option("--precision", arguments.precision, "fp32 or bf16")
      ->check(CLI::IsMember({"fp32", "bf16"}));
  app.add_option("--sequences", arguments.sequences, "sequences a step")
      ->check(CLI::Range(1, 4096));
  app.add_option("--length", arguments.length, "tokens of a sequence")->check(CLI::Range(2, 65536));
  app.add_option("--micro-batches", arguments.micro_batches)->check(CLI::Range(1, 4096));
  app.add_option("--steps", arguments.steps, "steps that are timed")->check(CLI::Range(1, 100000));
  app.add_option("--warmup", arguments.warmup, "steps before them")->check(CLI::Range(0, 1000));
  app.add_option("--threads", arguments.threads)->check(CLI::Range(1, 1024));
  app.add_flag("--recompute", arguments.recompute);
  CLI11_PARSE(app, argc, argv);
  if (arguments.sequences % arguments.micro_batches != 0) {
    std::fprintf(stderr, "pcmoe_step_bench: --sequences must be a multiple of --micro-batches\n");
    return 4;
  }
  pcmoe::tensor::InstallCountingAllocator();
  at::set_num_threads(arguments.threads);
  const absl::StatusOr<nlohmann::json> result = Run(arguments);
  if (!result.ok()) {
    std::fprintf(stderr, "pcmoe_step_bench: %s\n", result.status().ToString().c_str());
    return 1;
  }
  std::printf("%s\n", result->dump().c_str());
  return 0;
}
