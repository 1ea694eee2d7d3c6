// pcmoe/cli/report.h: writes the HTML report of a folder.
#pragma once

#include <filesystem>

#include "pcmoe/base/status.h"

namespace pcmoe::cli {

inline constexpr char kReportFile[] = "report.html";

/// Reads `folder` (report::MakeReport) and writes the page to `file`.
absl::Status WriteReport(const std::filesystem::path& folder, const std::filesystem::path& file);

/// FOLDER/report.html at the end of a run; a failure is a warning: the run itself is good.
void WriteReportOrWarn(const std::filesystem::path& folder);

}  // namespace pcmoe::cli
