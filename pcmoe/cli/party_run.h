// pcmoe/cli/party_run.h: puts a party together from its config and runs it.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "pcmoe/base/status.h"
#include "pcmoe/train/export_writer.h"

namespace pcmoe::cli {

/// Runs the party of `config_path` (with `overrides`, see RunConfig) until the run ends. Ctrl-C and
/// SIGTERM end it in order: CANCELLED. With `print_steps`, a line a step on stderr.
absl::Status RunParty(const std::filesystem::path& config_path,
                      const std::vector<std::string>& overrides, bool print_steps);

/// Exports the whole model of the newest step that all parties have: every party runs this once the
/// run is over. Of `request`, base_folder, federation and party are filled in here.
absl::Status ExportParty(const std::filesystem::path& config_path,
                         const std::vector<std::string>& overrides,
                         const train::ExportRequest& request);

}  // namespace pcmoe::cli
