// pcmoe/report/report.h: one self-contained HTML page from the files that a run, a comparison or a
// benchmark left.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "pcmoe/base/status.h"

namespace pcmoe::report {

/// No page is larger, in bytes.
inline constexpr size_t kMaxPageBytes = 2'000'000;

/// What a party's ledger says: who got how much of what.
struct LedgerFacts {
  struct Sum {
    std::string to, kind;
    uint64_t bytes = 0, messages = 0;
  };
  uint64_t records = 0;
  std::string head;  ///< Hash of the last record, hexadecimal.
  std::vector<Sum> sums;
};

/// Reads and checks the ledger at a path. Handed in, so that this folder knows no border.
using LedgerReader = std::function<absl::StatusOr<LedgerFacts>(const std::filesystem::path&)>;

/// The page of `folder`: a run's output_dir (metrics.jsonl, result.json), the --out of a `pcmoe
/// sim`, or a folder with a seven.json. What is missing there is missing in the page, and the page
/// says so; what cannot be read is INVALID_ARGUMENT or NOT_FOUND in one sentence. Never text of
/// training data: names, numbers, digests, settings and commands only.
absl::StatusOr<std::string> MakeReport(const std::filesystem::path& folder,
                                       const LedgerReader& ledger);

}  // namespace pcmoe::report
