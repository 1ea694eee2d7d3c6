// pcmoe/cli/report.cc: `pcmoe report`: makes the HTML page of a run, a sim or a benchmark again.
#include "pcmoe/cli/report.h"

#include <iostream>
#include <memory>

#include "pcmoe/base/digest.h"
#include "pcmoe/base/file.h"
#include "pcmoe/base/log.h"
#include "pcmoe/border/ledger.h"
#include "pcmoe/cli/commands.h"
#include "pcmoe/report/report.h"

namespace pcmoe::cli {
namespace {

namespace fs = std::filesystem;

absl::StatusOr<report::LedgerFacts> ReadLedger(const fs::path& path) {
  PCMOE_ASSIGN_OR_RETURN(const border::LedgerSummary summary, border::VerifyLedger(path));
  report::LedgerFacts facts{.records = summary.records, .head = base::ToHex(summary.head)};
  for (const auto& [key, sum] : summary.sums) {
    facts.sums.push_back(
        {.to = key.first, .kind = key.second, .bytes = sum.bytes, .messages = sum.messages});
  }
  return facts;
}

absl::Status Run(const std::string& folder, std::string out) {
  if (!fs::is_directory(folder)) {
    return absl::NotFoundError(absl::StrCat(folder, ": is not a folder"));
  }
  if (out.empty()) out = (fs::path(folder) / kReportFile).string();
  PCMOE_RETURN_IF_ERROR(WriteReport(folder, out));
  std::cout << out << "\n";
  return absl::OkStatus();
}

}  // namespace

absl::Status WriteReport(const fs::path& folder, const fs::path& file) {
  PCMOE_ASSIGN_OR_RETURN(const std::string page, report::MakeReport(folder, ReadLedger));
  return base::WriteFileAtomically(file, page);
}

void WriteReportOrWarn(const fs::path& folder) {
  const absl::Status status = WriteReport(folder, folder / kReportFile);
  if (!status.ok()) {
    base::LogWarning(absl::StrCat("no report was written: ", std::string(status.message())));
  }
}

void AddReport(CLI::App& app, absl::Status& result) {
  struct Flags {
    std::string folder, out;
  };
  const auto flags = std::make_shared<Flags>();
  CLI::App* report = app.add_subcommand(
      "report", "Make the HTML page of a run, a sim or a benchmark from the files it left");
  report
      ->add_option("folder", flags->folder,
                   "A run's output_dir, the --out of pcmoe sim, or a folder with a seven.json")
      ->required();
  report->add_option("--out", flags->out, "The page; without it, FOLDER/report.html");
  report->callback([flags, &result] { result = Run(flags->folder, flags->out); });
}

}  // namespace pcmoe::cli
