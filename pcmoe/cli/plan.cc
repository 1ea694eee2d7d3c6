// pcmoe/cli/plan.cc: `pcmoe plan`: what a model will need at n parties, before anything starts.
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "pcmoe/cli/commands.h"
#include "pcmoe/cli/plan_report.h"

namespace pcmoe::cli {
namespace {

absl::Status Run(PlanFlags flags) {
  flags.recipe.bf16 = flags.precision == "bf16";
  flags.recipe.int8_on_wire = flags.weights_on_wire == "int8";
  PCMOE_ASSIGN_OR_RETURN(const PlanReport report, MakePlanReport(flags));
  if (flags.json) {
    std::cout << JsonOfPlan(flags, report).dump() << "\n";
  } else {
    PrintPlan(flags, report);
  }
  return absl::OkStatus();
}

void AddLinkFlags(CLI::App& command, PlanFlags& flags) {
  command.add_option("--mbit", flags.mbit, "A party's link, Mbit/s each way: print seconds a step")
      ->check(CLI::Range(0.001, 1e7));
  command.add_option("--rtt-ms", flags.rtt_ms, "Milliseconds there and back, for --mbit")
      ->check(CLI::Range(0.0, 1e5));
  command
      .add_option("--tokens-per-s", flags.tokens_per_s,
                  "Tokens/s that a party computes when it waits for nothing, for --mbit")
      ->check(CLI::Range(0.001, 1e12));
}

}  // namespace

void AddPlan(CLI::App& app, absl::Status& result) {
  const auto flags = std::make_shared<PlanFlags>();
  CLI::App* command = app.add_subcommand(
      "plan", "Parameters, memory a party and traffic of a model, before anything starts");
  command->add_option("model", flags->model, "A model's folder, or its config.json")->required();
  command->add_option("-n", flags->n, "Parties")->check(CLI::Range(1, 256));
  command->add_option("--precision", flags->precision, "fp32 or bf16 compute")
      ->check(CLI::IsMember({"fp32", "bf16"}));
  command->add_flag("--recompute", flags->recipe.recompute, "gradient_checkpointing = true");
  const CLI::Range sizes(1, 1 << 20);
  command->add_option("--batch", flags->recipe.batch, "per_device_train_batch_size")->check(sizes);
  command->add_option("--seq", flags->recipe.sequence, "sequence_length")->check(sizes);
  command->add_option("--micro-batches", flags->recipe.micro_batches, "gradient_accumulation_steps")
      ->check(sizes);
  command->add_flag("--keep-fetched", flags->recipe.keep_fetched, "keep_fetched_weights = true");
  command->add_option("--weights-on-wire", flags->weights_on_wire, "model (its dtype) or int8")
      ->check(CLI::IsMember({"model", "int8"}));
  command
      ->add_option("--imbalance", flags->recipe.imbalance,
                   "Exchange rows: work of the party with the most-used experts against an even "
                   "share")
      ->check(CLI::Range(1.0, 256.0));
  command
      ->add_option("--eval-micro-batches", flags->recipe.eval_micro_batches,
                   "Micro-batches of the evaluation files, up to 8 of which are held; 0: none")
      ->check(CLI::Range(0, 8));
  AddLinkFlags(*command, *flags);
  command->add_flag("--json", flags->json, "One JSON object on stdout");
  command->callback([flags, &result] { result = Run(*flags); });
}

}  // namespace pcmoe::cli
