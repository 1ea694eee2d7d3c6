// pcmoe/cli/commands.h: one Add function a command; each stores its Status for main to report.
#pragma once

#include <CLI/CLI.hpp>

#include "pcmoe/base/status.h"

namespace pcmoe::cli {

void AddTrain(CLI::App& app, absl::Status& result);
void AddProvision(CLI::App& app, absl::Status& result);
void AddExport(CLI::App& app, absl::Status& result);
void AddLedger(CLI::App& app, absl::Status& result);
void AddPlan(CLI::App& app, absl::Status& result);
void AddEval(CLI::App& app, absl::Status& result);
void AddData(CLI::App& app, absl::Status& result);
void AddAudit(CLI::App& app, absl::Status& result);
void AddSim(CLI::App& app, absl::Status& result);
void AddReport(CLI::App& app, absl::Status& result);

}  // namespace pcmoe::cli
