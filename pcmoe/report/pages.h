// pcmoe/report/pages.h: the three pages.
#pragma once

#include "pcmoe/report/page.h"
#include "pcmoe/report/report.h"

namespace pcmoe::report {

/// A run's output_dir.
absl::StatusOr<Page> RunPage(const std::filesystem::path& folder, const LedgerReader& ledger);
/// The --out of a `pcmoe sim`.
absl::StatusOr<Page> SimPage(const std::filesystem::path& folder, const LedgerReader& ledger);
/// A folder with seven.json: modes by tasks.
absl::StatusOr<Page> SevenPage(const std::filesystem::path& folder);

}  // namespace pcmoe::report
