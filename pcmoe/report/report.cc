// pcmoe/report/report.cc: see report.h.
#include "pcmoe/report/report.h"

#include "pcmoe/report/pages.h"

namespace pcmoe::report {
namespace {

namespace fs = std::filesystem;

constexpr size_t kPoints[] = {400, 120, 40};

absl::StatusOr<Page> PageOf(const fs::path& folder, const LedgerReader& ledger) {
  if (fs::exists(folder / "seven.json")) return SevenPage(folder);
  if (fs::exists(folder / "made-by-pcmoe-sim")) return SimPage(folder, ledger);
  if (fs::exists(folder / "metrics.jsonl")) return RunPage(folder, ledger);
  return absl::NotFoundError(absl::StrCat(
      folder.string(),
      ": holds no run; give a run's output_dir, the --out of pcmoe sim, or a folder with a "
      "seven.json"));
}

}  // namespace

absl::StatusOr<std::string> MakeReport(const fs::path& folder, const LedgerReader& ledger) {
  PCMOE_ASSIGN_OR_RETURN(const Page page, PageOf(folder, ledger));
  for (const size_t points : kPoints) {
    std::string html = ToHtml(page, points);
    if (html.size() <= kMaxPageBytes) return html;
  }
  return absl::OutOfRangeError(absl::StrCat(folder.string(), ": has too much in it for a page of ",
                                            kMaxPageBytes, " bytes"));
}

}  // namespace pcmoe::report
