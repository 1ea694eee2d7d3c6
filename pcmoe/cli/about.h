// pcmoe/cli/about.h: what a run's folder says about how the run was made: about.json, for its
// report.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>

#include "pcmoe/model/config.h"
#include "pcmoe/provision/identity.h"
#include "pcmoe/train/run_config.h"

namespace pcmoe::cli {

/// Version, this process's command line, machine and time of start.
nlohmann::ordered_json AboutThisProcess();

/// What a run is made of; the references outlive the call.
struct RunFacts {
  const train::RunConfig& config;
  const model::ModelConfig& model;
  const provision::Identity* identity = nullptr;  ///< Null: a run of one party.
  int64_t train_files = 1;                        ///< Read side by side: micro-batches a step.
  int64_t eval_micro_batches = 0;                 ///< Of the largest evaluation file.
};

/// Settings, digests and what `pcmoe plan` predicts for them, besides AboutThisProcess: the text of
/// an about.json.
absl::StatusOr<nlohmann::ordered_json> AboutRun(const RunFacts& facts);

/// Writes FOLDER/about.json; a failure is a warning, since nothing but the report needs it.
void WriteAbout(const absl::StatusOr<nlohmann::ordered_json>& about,
                const std::filesystem::path& folder);

/// The settings as a report shows them.
nlohmann::ordered_json SettingsOf(const train::RunConfig& config);

}  // namespace pcmoe::cli
