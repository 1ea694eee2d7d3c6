// pcmoe/cli/ledger.cc: `pcmoe ledger verify|show`: checks a ledger's chain; says what left, to
// whom.
#include "pcmoe/border/ledger.h"

#include <iostream>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <tuple>

#include "absl/strings/str_format.h"
#include "pcmoe/cli/commands.h"

namespace pcmoe::cli {
namespace {

using Json = nlohmann::ordered_json;

struct Flags {
  std::string path;
  bool json = false;
  bool by_step = false;
  uint64_t first_step = 0;
  uint64_t last_step = std::numeric_limits<uint64_t>::max();
};

absl::Status Verify(const Flags& flags) {
  PCMOE_ASSIGN_OR_RETURN(const border::LedgerSummary summary, border::VerifyLedger(flags.path));
  if (flags.json) {
    std::cout << Json{{"records", summary.records},
                      {"first_step", summary.first_step},
                      {"last_step", summary.last_step},
                      {"half_record_bytes", summary.half_record_bytes},
                      {"head", base::ToHex(summary.head)}}
                     .dump()
              << "\n";
    return absl::OkStatus();
  }
  std::cout << absl::StrFormat("%d records, steps %d to %d, chain intact, head %s\n",
                               summary.records, summary.first_step, summary.last_step,
                               base::ToHex(summary.head));
  if (summary.half_record_bytes > 0) {
    std::cout << absl::StrFormat("%d bytes of an unfinished record at the end, as a crash leaves\n",
                                 summary.half_record_bytes);
  }
  return absl::OkStatus();
}

// Sums by (step, receiver, kind) of the steps asked for; all steps are one unless `by_step`.
absl::Status Show(const Flags& flags) {
  using Key = std::tuple<uint64_t, std::string, std::string>;
  std::map<Key, border::LedgerSummary::Sum> sums;
  const auto add = [&](const border::LedgerRecord& record) {
    const uint64_t step = record.header.step;
    if (step < flags.first_step || step > flags.last_step) return;
    border::LedgerSummary::Sum& sum = sums[{flags.by_step ? step : 0, record.to, record.kind}];
    sum.bytes += record.bytes;
    ++sum.messages;
  };
  PCMOE_ASSIGN_OR_RETURN(const border::LedgerSummary summary,
                         border::VerifyLedger(flags.path, add));
  Json rows = Json::array();
  if (!flags.json) {
    std::cout << absl::StrFormat("%8s %-12s %-16s %10s %16s\n", flags.by_step ? "step" : "", "to",
                                 "kind", "messages", "bytes");
  }
  for (const auto& [key, sum] : sums) {
    const auto& [step, to, kind] = key;
    Json row = {{"to", to}, {"kind", kind}, {"messages", sum.messages}, {"bytes", sum.bytes}};
    if (flags.by_step) row["step"] = step;
    if (!flags.json) {
      std::cout << absl::StrFormat("%8s %-12s %-16s %10d %16d\n",
                                   flags.by_step ? absl::StrCat(step) : "", to, kind, sum.messages,
                                   sum.bytes);
    }
    rows.push_back(std::move(row));
  }
  if (flags.json) {
    std::cout << Json{{"records", summary.records},
                      {"head", base::ToHex(summary.head)},
                      {"sums", rows}}
                     .dump()
              << "\n";
  }
  return absl::OkStatus();
}

}  // namespace

void AddLedger(CLI::App& app, absl::Status& result) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* ledger = app.add_subcommand("ledger", "What left this party, and whether that is true");
  ledger->require_subcommand(1);
  const auto add_common = [&flags](CLI::App* command) {
    command->add_option("path", flags->path, "OUTPUT_DIR/ledger.jsonl")->required();
    command->add_flag("--json", flags->json, "One JSON object on stdout");
  };
  CLI::App* verify = ledger->add_subcommand(
      "verify",
      "Check every record; one that was changed, dropped or moved is named by its number");
  add_common(verify);
  verify->callback([flags, &result] { result = Verify(*flags); });
  CLI::App* show = ledger->add_subcommand("show", "Messages and bytes by receiver and kind");
  add_common(show);
  show->add_flag("--by-step", flags->by_step, "A line for every step, too");
  show->add_option("--first-step", flags->first_step, "Leave out what left before this step");
  show->add_option("--last-step", flags->last_step, "Leave out what left after this step");
  show->callback([flags, &result] { result = Show(*flags); });
}

}  // namespace pcmoe::cli
