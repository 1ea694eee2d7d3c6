// pcmoe/cli/plan_report.h: what `pcmoe plan` was asked and what it answers, as text and as JSON.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "pcmoe/plan/weights_plan.h"

namespace pcmoe::cli {

/// The command's arguments.
struct PlanFlags {
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

/// One line of the tables: an exchange with what is aggregated. Numbers are those of the busiest
/// party.
struct PlanLine {
  std::string name, title;
  plan::Memory memory;
  plan::Flow step, sweep;      ///< A training step; a sweep of an evaluation.
  double break_even = 0;       ///< Tokens a party and step from which on it sends less than rows.
  double seconds = 0;          ///< A step over the link; 0 without --mbit.
  double link_break_even = 0;  ///< As break_even, in time.
};

/// The answer.
struct PlanReport {
  model::ModelConfig config;
  model::ParameterCount count;
  plan::Memory central;
  plan::Traffic rows;
  std::vector<PlanLine> lines;  ///< `rows`, then the ways to run `weights`.
};

/// INVALID_ARGUMENT when the model's config cannot be read or is too large for a federation.
absl::StatusOr<PlanReport> MakePlanReport(const PlanFlags& flags);

/// To stdout.
void PrintPlan(const PlanFlags& flags, const PlanReport& report);
nlohmann::ordered_json JsonOfPlan(const PlanFlags& flags, const PlanReport& report);

}  // namespace pcmoe::cli
