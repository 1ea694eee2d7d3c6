// pcmoe/cli/plan_report.cc: see plan_report.h.
#include "pcmoe/cli/plan_report.h"

#include <algorithm>
#include <cmath>
#include <iostream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"

namespace pcmoe::cli {
namespace {

using exchange::BackboneModes;
using exchange::PartMode;
using Json = nlohmann::ordered_json;

std::string Count(int64_t count) {
  return count >= 10'000'000 ? absl::StrFormat("%.3f B", static_cast<double>(count) / 1e9)
                             : absl::StrFormat("%.3f M", static_cast<double>(count) / 1e6);
}

std::string Bytes(double bytes) {
  if (bytes >= 1e9) return absl::StrFormat("%.2f GB", bytes / 1e9);
  if (bytes >= 1e6) return absl::StrFormat("%.2f MB", bytes / 1e6);
  return absl::StrFormat("%.1f kB", bytes / 1e3);
}

std::string Tokens(double tokens) {
  return std::isfinite(tokens) ? absl::StrFormat("%.0f", std::ceil(tokens)) : "never";
}

double States(const plan::Memory& memory) { return memory.states + memory.transient; }

double Peak(const plan::Memory& memory) { return memory.peak_allocated() + memory.messages; }

PlanLine RowsLine(const PlanFlags& flags, const PlanReport& report) {
  PlanLine line{.name = "rows", .title = "rows (backbone private)"};
  line.memory = plan::PredictMemory(report.config, flags.recipe, flags.n);
  line.step = {report.rows.bytes_per_step, report.rows.bytes_per_step};
  if (flags.mbit > 0) {
    line.seconds =
        plan::RowsSeconds(report.config, flags.recipe, flags.n, flags.link(), flags.tokens());
  }
  return line;
}

absl::StatusOr<PlanLine> WeightsLine(const PlanFlags& flags, const PlanReport& report,
                                     const char* name, const char* title,
                                     const BackboneModes& modes) {
  PCMOE_ASSIGN_OR_RETURN(const plan::WeightsPlan weights,
                         plan::WeightsPlan::Create(report.config, flags.recipe, modes, flags.n));
  PlanLine line{.name = name, .title = title, .memory = weights.Largest()};
  for (int party = 0; party < weights.parties(); ++party) {
    const plan::Flow step = weights.StepOf(party);
    const plan::Flow sweep = weights.SweepOf(party);
    line.step = {std::max(line.step.sent, step.sent), std::max(line.step.received, step.received)};
    line.sweep = {std::max(line.sweep.sent, sweep.sent),
                  std::max(line.sweep.received, sweep.received)};
  }
  line.break_even = plan::BreakEvenTokens(report.config, flags.recipe, flags.n, weights);
  if (flags.mbit > 0) {
    line.seconds = plan::WeightsSeconds(weights, flags.link(), flags.tokens());
    line.link_break_even =
        plan::BreakEvenTokens(report.config, flags.recipe, flags.n, weights, flags.link());
  }
  return line;
}

void PrintMemory(const PlanFlags& flags, const PlanReport& report) {
  std::cout << absl::StrFormat("\n%-27s %11s %11s %11s %11s %7s %7s\n", "memory a party", "states",
                               "transient", "activations", "messages", "states", "peak");
  const auto row = [&](const std::string& title, const plan::Memory& memory) {
    const double states = 100 * (1 - States(memory) / States(report.central));
    const double peak = 100 * (1 - Peak(memory) / Peak(report.central));
    std::cout << absl::StrFormat("%-27s %11s %11s %11s %11s %6.1f%% %6.1f%%\n", title,
                                 Bytes(memory.states), Bytes(memory.transient),
                                 Bytes(memory.activations), Bytes(memory.messages), states, peak);
  };
  row("central", report.central);
  if (flags.n == 1) return;
  for (const PlanLine& line : report.lines) row(line.title, line.memory);
  std::cout << absl::StrFormat(
      "the last two columns: saved against central, by the largest of %d parties; the peak counts "
      "messages\n",
      flags.n);
}

void PrintTraffic(const PlanFlags& flags, const PlanReport& report) {
  const bool timed = flags.mbit > 0;
  std::cout << absl::StrFormat("\n%-27s %11s %11s %11s %12s", "traffic a party and step", "sent",
                               "received", "evaluation", "break-even");
  if (timed) std::cout << absl::StrFormat(" %10s %12s", "seconds", "break-even");
  std::cout << "\n";
  for (const PlanLine& line : report.lines) {
    const bool rows = line.name == "rows";
    std::cout << absl::StrFormat("%-27s %11s %11s %11s %12s", line.title, Bytes(line.step.sent),
                                 Bytes(line.step.received), rows ? "-" : Bytes(line.sweep.received),
                                 rows ? "-" : Tokens(line.break_even));
    if (timed) {
      std::cout << absl::StrFormat(" %10.2f %12s", line.seconds,
                                   rows ? "-" : Tokens(line.link_break_even));
    }
    std::cout << "\n";
  }
  std::cout << absl::StrFormat(
      "of the busiest party, %.0f tokens a step; rows: %s a token (%.2f other owners a token and "
      "layer);\n"
      "evaluation: received in a sweep over the layers; break-even: tokens a party and step from "
      "which on\n"
      "weights sends less than rows%s\n",
      flags.tokens(), Bytes(report.rows.bytes_per_token), report.rows.remote_owners,
      timed ? absl::StrFormat(", and then is faster at %g Mbit/s each way and %g ms there and back",
                              flags.mbit, flags.rtt_ms)
            : std::string(" (--mbit: in seconds)"));
}

void PrintRowBound(const PlanFlags& flags, const PlanReport& report) {
  const double rows = plan::RowsOfAnExpert(report.config, flags.recipe, flags.n);
  const auto bound = static_cast<double>(4 * report.config.hidden_size);
  if (rows >= bound || report.count.experts == 0) return;
  std::cout << absl::StrFormat(
      "\nweights: an expert gets about %.0f rows a step, fewer than min_rows = %.0f: its gradients "
      "are held at\nhome for about %.0f steps, in up to %s more a party; take more tokens a step\n",
      rows, bound, std::ceil(bound / rows), Bytes(8 * static_cast<double>(report.count.experts)));
}

Json JsonOf(const plan::Memory& memory) {
  return {{"states_bytes", States(memory)},
          {"transient_bytes", memory.transient},
          {"activation_bytes", memory.activations},
          {"peak_allocated_bytes", memory.peak_allocated()},
          {"message_bytes", memory.messages}};
}

Json Number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

Json JsonOf(const PlanFlags& flags, const PlanReport& report, const PlanLine& line) {
  const bool rows = line.name == "rows";
  Json json{{"party", JsonOf(line.memory)},
            {"states_saved", 1 - States(line.memory) / States(report.central)},
            {"step_sent_bytes", line.step.sent},
            {"step_received_bytes", line.step.received}};
  if (rows) {
    json["remote_owners"] = report.rows.remote_owners;
    json["bytes_per_token"] = report.rows.bytes_per_token;
  } else {
    json["evaluation_sent_bytes"] = line.sweep.sent;
    json["evaluation_received_bytes"] = line.sweep.received;
    json["break_even_tokens"] = Number(line.break_even);
  }
  if (flags.mbit > 0) {
    json["step_s"] = line.seconds;
    if (!rows) json["link_break_even_tokens"] = Number(line.link_break_even);
  }
  return json;
}

}  // namespace

absl::StatusOr<PlanReport> MakePlanReport(const PlanFlags& flags) {
  PlanReport report;
  PCMOE_ASSIGN_OR_RETURN(report.config, model::LoadConfig(flags.model));
  report.count = model::CountParameters(report.config);
  report.central = plan::PredictMemory(report.config, flags.recipe, 1);
  report.rows = plan::PredictTraffic(report.config, flags.recipe, flags.n);
  report.lines.push_back(RowsLine(flags, report));
  const PartMode private_mode = PartMode::kPrivate;
  const PartMode aggregated = PartMode::kAggregated;
  const PartMode frozen = PartMode::kFrozen;
  // A tied head cannot learn with a frozen embedding, so their defaults are private.
  const PartMode embedding = report.config.tie_word_embeddings ? private_mode : frozen;
  struct Mode {
    const char *name, *title;
    BackboneModes modes;
  };
  const std::vector<Mode> modes{
      {"weights_private", "weights, backbone private", {private_mode, private_mode, private_mode}},
      {"weights_frozen", "weights, backbone frozen", {frozen, embedding, private_mode}},
      {"weights_default", "weights, from a checkpoint", {aggregated, embedding, private_mode}},
      {"weights_scratch", "weights, from scratch", {aggregated, private_mode, private_mode}},
      {"weights_aggregated", "weights, all aggregated", {aggregated, aggregated, aggregated}}};
  for (const Mode& mode : modes) {
    PCMOE_ASSIGN_OR_RETURN(report.lines.emplace_back(),
                           WeightsLine(flags, report, mode.name, mode.title, mode.modes));
  }
  return report;
}

void PrintPlan(const PlanFlags& flags, const PlanReport& report) {
  const model::ParameterCount& count = report.count;
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
  PrintMemory(flags, report);
  if (flags.n == 1) return;
  PrintTraffic(flags, report);
  PrintRowBound(flags, report);
}

nlohmann::ordered_json JsonOfPlan(const PlanFlags& flags, const PlanReport& report) {
  const plan::Recipe& recipe = flags.recipe;
  Json json{{"model_type", model::FamilyName(report.config.family)},
            {"parties", flags.n},
            {"parameters",
             {{"total", report.count.total},
              {"active", report.count.active},
              {"backbone", report.count.backbone},
              {"experts", report.count.experts},
              {"per_expert", report.count.per_expert}}},
            {"recipe",
             {{"precision", flags.precision},
              {"gradient_checkpointing", recipe.recompute},
              {"per_device_train_batch_size", recipe.batch},
              {"sequence_length", recipe.sequence},
              {"gradient_accumulation_steps", recipe.micro_batches},
              {"keep_fetched_weights", recipe.keep_fetched},
              {"weights_on_wire", flags.weights_on_wire},
              {"imbalance", recipe.imbalance},
              {"bytes_per_parameter", plan::BytesPerParameter(recipe)}}},
            {"rows_of_an_expert", plan::RowsOfAnExpert(report.config, recipe, flags.n)},
            {"central", JsonOf(report.central)}};
  if (flags.mbit > 0) {
    json["link"] = {
        {"mbit", flags.mbit}, {"rtt_ms", flags.rtt_ms}, {"tokens_per_s", flags.tokens_per_s}};
  }
  for (const PlanLine& line : report.lines) json[line.name] = JsonOf(flags, report, line);
  return json;
}

}  // namespace pcmoe::cli
