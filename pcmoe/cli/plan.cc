// pcmoe/cli/plan.cc: `pcmoe plan`: what a model will need at n parties, before anything starts.
#include "pcmoe/plan/plan.h"

#include <cmath>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"
#include "pcmoe/cli/commands.h"
#include "pcmoe/plan/weights_plan.h"

namespace pcmoe::cli {
namespace {

using exchange::BackboneModes;
using exchange::PartMode;
using Json = nlohmann::ordered_json;

struct Flags {
  std::string model, precision = "fp32", weights_on_wire = "model";
  int64_t n = 4;
  plan::Recipe recipe;
  double mbit = 0, rtt_ms = 0, tokens_per_s = 0;
  bool json = false;
  plan::Link link() const {
    return {.mbit = mbit, .round_trip = rtt_ms / 1e3, .tokens_per_s = tokens_per_s};
  }
  double tokens() const { return static_cast<double>(recipe.tokens() * recipe.micro_batches); }
};

// One line of the table: an exchange with what is aggregated.
struct Line {
  std::string name, title;
  plan::Memory memory;
  plan::Flow step;             // of the busiest party
  plan::Flow sweep;            // likewise, of an evaluation
  double break_even = 0;       // in bytes
  double seconds = 0;          // over the link
  double link_break_even = 0;  // in time
};

struct Report {
  model::ModelConfig config;
  model::ParameterCount count;
  plan::Memory central;
  plan::Traffic rows;
  std::vector<Line> lines;  // rows first
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

std::string Tokens(double tokens) {
  return std::isfinite(tokens) ? absl::StrFormat("%.0f", std::ceil(tokens)) : "never";
}

double States(const plan::Memory& memory) { return memory.states + memory.transient; }

double Peak(const plan::Memory& memory) { return memory.peak_allocated() + memory.messages; }

Line RowsLine(const Flags& flags, const Report& report) {
  Line line{.name = "rows", .title = "rows (backbone private)"};
  line.memory = plan::PredictMemory(report.config, flags.recipe, flags.n);
  line.step = {report.rows.bytes_per_step, report.rows.bytes_per_step};
  if (flags.mbit > 0) {
    line.seconds =
        plan::RowsSeconds(report.config, flags.recipe, flags.n, flags.link(), flags.tokens());
  }
  return line;
}

absl::StatusOr<Line> WeightsLine(const Flags& flags, const Report& report, const char* name,
                                 const char* title, const BackboneModes& modes) {
  PCMOE_ASSIGN_OR_RETURN(const plan::WeightsPlan weights,
                         plan::WeightsPlan::Create(report.config, flags.recipe, modes, flags.n));
  Line line{.name = name, .title = title, .memory = weights.Largest()};
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

absl::StatusOr<Report> MakeReport(const Flags& flags) {
  Report report;
  PCMOE_ASSIGN_OR_RETURN(report.config, model::LoadConfig(flags.model));
  report.count = model::CountParameters(report.config);
  report.central = plan::PredictMemory(report.config, flags.recipe, 1);
  report.rows = plan::PredictTraffic(report.config, flags.recipe, flags.n);
  report.lines.push_back(RowsLine(flags, report));
  const PartMode private_mode = PartMode::kPrivate;
  const PartMode aggregated = PartMode::kAggregated;
  struct Mode {
    const char *name, *title;
    BackboneModes modes;
  };
  std::vector<Mode> modes{
      {"weights_private", "weights, backbone private", {private_mode, private_mode, private_mode}},
      {"weights_default",
       "weights, from a checkpoint",
       {aggregated, PartMode::kFrozen, private_mode}},
      {"weights_scratch", "weights, from scratch", {aggregated, private_mode, private_mode}},
      {"weights_aggregated", "weights, all aggregated", {aggregated, aggregated, aggregated}}};
  // A tied head cannot learn with a frozen embedding, so both defaults are private.
  if (report.config.tie_word_embeddings) modes[1].modes = modes[2].modes;
  for (const Mode& mode : modes) {
    PCMOE_ASSIGN_OR_RETURN(report.lines.emplace_back(),
                           WeightsLine(flags, report, mode.name, mode.title, mode.modes));
  }
  return report;
}

void PrintMemory(const Flags& flags, const Report& report) {
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
  for (const Line& line : report.lines) row(line.title, line.memory);
  std::cout << absl::StrFormat(
      "the last two columns: saved against central, by the largest of %d parties; the peak counts "
      "messages\n",
      flags.n);
}

void PrintTraffic(const Flags& flags, const Report& report) {
  const bool timed = flags.mbit > 0;
  std::cout << absl::StrFormat("\n%-27s %11s %11s %11s %12s", "traffic a party and step", "sent",
                               "received", "evaluation", "break-even");
  if (timed) std::cout << absl::StrFormat(" %10s %12s", "seconds", "break-even");
  std::cout << "\n";
  for (const Line& line : report.lines) {
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

void PrintRowBound(const Flags& flags, const Report& report) {
  const double rows = plan::RowsOfAnExpert(report.config, flags.recipe, flags.n);
  const auto bound = static_cast<double>(4 * report.config.hidden_size);
  if (rows >= bound || report.count.experts == 0) return;
  std::cout << absl::StrFormat(
      "\nweights: an expert gets about %.0f rows a step, fewer than min_rows = %.0f: its gradients "
      "are held at\nhome for about %.0f steps, in up to %s more a party; take more tokens a step\n",
      rows, bound, std::ceil(bound / rows), Bytes(8 * static_cast<double>(report.count.experts)));
}

void Print(const Flags& flags, const Report& report) {
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

Json JsonOf(const plan::Memory& memory) {
  return {{"states_bytes", States(memory)},
          {"transient_bytes", memory.transient},
          {"activation_bytes", memory.activations},
          {"peak_allocated_bytes", memory.peak_allocated()},
          {"message_bytes", memory.messages}};
}

Json Number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

Json JsonOf(const Flags& flags, const Report& report, const Line& line) {
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

Json JsonOf(const Flags& flags, const Report& report) {
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
  for (const Line& line : report.lines) json[line.name] = JsonOf(flags, report, line);
  return json;
}

absl::Status Run(Flags flags) {
  flags.recipe.bf16 = flags.precision == "bf16";
  flags.recipe.int8_on_wire = flags.weights_on_wire == "int8";
  PCMOE_ASSIGN_OR_RETURN(const Report report, MakeReport(flags));
  if (flags.json) {
    std::cout << JsonOf(flags, report).dump() << "\n";
  } else {
    Print(flags, report);
  }
  return absl::OkStatus();
}

void AddLinkFlags(CLI::App& command, Flags& flags) {
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
