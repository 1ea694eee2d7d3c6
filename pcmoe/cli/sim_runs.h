// pcmoe/cli/sim_runs.h: the runs of a sim: the federation, and what it is compared with, as folders
// with party.toml files ready to start.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "pcmoe/cli/sim_process.h"
#include "pcmoe/train/run_config.h"

namespace pcmoe::cli {

/// What a sim is asked for.
struct SimPlan {
  train::RunConfig config;           ///< [data] files may hold "{party}".
  std::vector<std::string> parties;  ///< Names.
  std::filesystem::path out;         ///< Absolute.
  uint16_t first_port = 0;           ///< 0: any free ports.
};

/// One process of a run, and whose evaluation files it evaluates.
struct SimProcess {
  std::string name;  ///< Of the party; "all" in the central run.
  ChildSpec child;
  std::filesystem::path output_dir;
  std::vector<std::string> evaluates;  ///< Names of parties.
};

/// Processes that run at the same time, and belong together in the comparison.
struct SimRun {
  std::string name;  ///< "federated", or what it is compared with
  std::vector<SimProcess> processes;
  int64_t steps = 0;
};

/// The names that --compare takes.
const std::vector<std::string>& ComparisonNames();

/// The config of `party`: its files in the place of "{party}", `identity` not yet set.
train::RunConfig ConfigOf(const SimPlan& plan, const std::string& party);

/// Provisions the federation into plan.out and writes plan.out/PARTY/party.toml. Shuffle keys come
/// from the seed, so that the same sim gives the same weights.
absl::StatusOr<SimRun> PrepareFederation(const SimPlan& plan);

/// What the federation's settings come to for this model: "exchange weights, backbone aggregated,
/// ..".
absl::StatusOr<std::string> DescribeFederation(const train::RunConfig& config);

/// Prepares the run `name` (one of ComparisonNames) below plan.out/compared_with/. Under the
/// schedule round_robin, where a party is active in one of n steps, it has max_steps / n steps: the
/// same tokens.
absl::StatusOr<SimRun> PrepareComparison(const SimPlan& plan, const std::string& name);

/// config.json of a model with `num_experts` experts a layer and `experts_per_token`, or all, of
/// them a token; all else as in `json`. INVALID_ARGUMENT when the text has no number of experts.
absl::StatusOr<std::string> WithExperts(const std::string& json, int64_t num_experts,
                                        int64_t experts_per_token);

}  // namespace pcmoe::cli
