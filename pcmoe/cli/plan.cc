// pcmoe/cli/plan.cc: `pcmoe plan`: what a model will need at n parties, before anything starts.
#include "pcmoe/plan/plan.h"

#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"
#include "pcmoe/cli/commands.h"

namespace pcmoe::cli {
namespace {

struct Flags {
  std::string model, precision = "fp32";
  int64_t n = 4;
  plan::Recipe recipe;
  bool json = false;
};

std::string Count(int64_t count) {
  return count >= 10'000'000 ? absl::StrFormat("%.3f B", static_cast<double>(count) / 1e9)
                             : absl::StrFormat("%.3f M", static_cast<double>(count) / 1e6);
}

std::string Bytes(double bytes) {
  if (bytes >= 1e9) return absl::StrFormat("%.2f GB", bytes / 1e9);
  if (bytes >= 1e6) return absl::StrFormat("%.2f MB", bytes / 1e6);
  return absl::StrFormat("%.1f kB", bytes / 1e3);
}

nlohmann::ordered_json JsonOf(const plan::Memory& memory) {
  return {{"states_bytes", memory.states},
          {"activation_bytes", memory.activations},
          {"peak_allocated_bytes", memory.peak_allocated()},
          {"message_bytes", memory.messages}};
}

void Print(const Flags& flags, const model::ParameterCount& count, const plan::Memory& central,
           const plan::Memory& party, const plan::Traffic& traffic) {
  std::cout << absl::StrFormat(
      "parameters  %s: backbone %s, experts %s (%.1f %%); %s active a token\n", Count(count.total),
      Count(count.backbone), Count(count.experts),
      100.0 * static_cast<double>(count.experts) / static_cast<double>(count.total),
      Count(count.active));
  std::cout << absl::StrFormat(
      "recipe      %s, AdamW: %.0f bytes a parameter%s; %d micro-batches of %d x %d tokens\n",
      flags.precision, plan::BytesPerParameter(flags.recipe),
      flags.recipe.recompute ? ", recompute" : "", flags.recipe.micro_batches, flags.recipe.batch,
      flags.recipe.sequence);
  std::cout << absl::StrFormat("%-11s %12s %12s %12s %12s\n", "memory", "states", "activations",
                               "peak", "messages");
  for (const auto& [name, memory] : {std::pair{"central", &central}, {"a party", &party}}) {
    std::cout << absl::StrFormat("%-11s %12s %12s %12s %12s\n", name, Bytes(memory->states),
                                 Bytes(memory->activations), Bytes(memory->peak_allocated()),
                                 Bytes(memory->messages));
  }
  const auto saved = [](double mine, double whole) { return 100 * (1 - mine / whole); };
  std::cout << absl::StrFormat(
      "a party of %d saves %.1f %% of the states and %.1f %% of the peak, messages counted\n",
      flags.n, saved(party.states, central.states),
      saved(party.peak_allocated() + party.messages, central.peak_allocated()));
  std::cout << absl::StrFormat(
      "traffic     exchange rows: %s a token (%.2f other owners a token and layer), %s a party and "
      "step\n",
      Bytes(traffic.bytes_per_token), traffic.remote_owners, Bytes(traffic.bytes_per_step));
}

absl::Status Run(Flags flags) {
  flags.recipe.bf16 = flags.precision == "bf16";
  PCMOE_ASSIGN_OR_RETURN(const model::ModelConfig config, model::LoadConfig(flags.model));
  const model::ParameterCount count = model::CountParameters(config);
  const plan::Memory central = plan::PredictMemory(config, flags.recipe, 1);
  const plan::Memory party = plan::PredictMemory(config, flags.recipe, flags.n);
  const plan::Traffic traffic = plan::PredictTraffic(config, flags.recipe, flags.n);
  if (!flags.json) {
    Print(flags, count, central, party, traffic);
    return absl::OkStatus();
  }
  const nlohmann::ordered_json json = {
      {"model_type", model::FamilyName(config.family)},
      {"parties", flags.n},
      {"parameters",
       {{"total", count.total},
        {"active", count.active},
        {"backbone", count.backbone},
        {"experts", count.experts},
        {"per_expert", count.per_expert}}},
      {"recipe",
       {{"precision", flags.precision},
        {"gradient_checkpointing", flags.recipe.recompute},
        {"per_device_train_batch_size", flags.recipe.batch},
        {"sequence_length", flags.recipe.sequence},
        {"gradient_accumulation_steps", flags.recipe.micro_batches},
        {"imbalance", flags.recipe.imbalance},
        {"bytes_per_parameter", plan::BytesPerParameter(flags.recipe)}}},
      {"central", JsonOf(central)},
      {"party", JsonOf(party)},
      {"states_saved", 1 - party.states / central.states},
      {"traffic",
       {{"exchange", "rows"},
        {"remote_owners", traffic.remote_owners},
        {"bytes_per_token", traffic.bytes_per_token},
        {"bytes_per_step", traffic.bytes_per_step}}}};
  std::cout << json.dump() << "\n";
  return absl::OkStatus();
}

}  // namespace

void AddPlan(CLI::App& app, absl::Status& result) {
  const auto flags = std::make_shared<Flags>();
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
  command
      ->add_option("--imbalance", flags->recipe.imbalance,
                   "Work of the party with the most-used experts against an even share")
      ->check(CLI::Range(1.0, 256.0));
  command
      ->add_option("--eval-micro-batches", flags->recipe.eval_micro_batches,
                   "Micro-batches of the evaluation files, up to 8 of which are held; 0: none")
      ->check(CLI::Range(0, 8));
  command->add_flag("--json", flags->json, "One JSON object on stdout");
  command->callback([flags, &result] { result = Run(*flags); });
}

}  // namespace pcmoe::cli
