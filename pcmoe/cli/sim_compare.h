// pcmoe/cli/sim_compare.h: what the runs of a sim came to: one table, and who wins, in sentences.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "pcmoe/cli/sim_runs.h"

namespace pcmoe::cli {

/// One run's outcome.
struct SimOutcome {
  std::string name;
  int64_t steps = 0;
  std::map<std::string, double> eval_loss;      ///< Party -> nats a token on its evaluation files.
  std::map<std::string, int64_t> eval_tokens;   ///< Party -> tokens that the loss is the mean of.
  std::map<std::string, double> eval_accuracy;  ///< Party -> share of rows with a label, if any.
  uint64_t states_bytes = 0;     ///< Weights, gradients, optimizer state: the largest process.
  uint64_t allocated_bytes = 0;  ///< Peak of all tensors, the largest process.
  uint64_t resident_bytes = 0;   ///< Peak of the process, the largest one.
  uint64_t sent_bytes = 0;       ///< Over all processes and steps.
  double tokens_per_s = 0;       ///< Over all processes.
  double wall_s = 0;             ///< From start to end, evaluation and checkpoint with it.

  /// Mean over the parties, each counting alike; NaN when no party evaluated.
  double MeanEvalLoss() const;
};

/// Reads the processes' result.json. NOT_FOUND or INVALID_ARGUMENT names the file that is not as it
/// should be.
absl::StatusOr<SimOutcome> ReadOutcome(const SimPlan& plan, const SimRun& run);

/// The table, for a screen: a line a run.
std::string TableOf(const std::vector<SimOutcome>& outcomes,
                    const std::vector<std::string>& parties);

/// A sentence a comparison: which one the federation (the outcome called "federated") wins or
/// loses.
std::vector<std::string> VerdictsOf(const std::vector<SimOutcome>& outcomes);

/// All of it as one JSON object.
nlohmann::ordered_json JsonOf(const std::vector<SimOutcome>& outcomes,
                              const std::vector<std::string>& parties);

}  // namespace pcmoe::cli
