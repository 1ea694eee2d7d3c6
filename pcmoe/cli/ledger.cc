// pcmoe/cli/ledger.cc: `pcmoe ledger`: checks a ledger's chain and says what left, to whom.
#include "pcmoe/border/ledger.h"

#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"
#include "pcmoe/cli/commands.h"

namespace pcmoe::cli {
namespace {

absl::Status Run(const std::string& path, bool json) {
  PCMOE_ASSIGN_OR_RETURN(const border::LedgerSummary summary, border::VerifyLedger(path));
  nlohmann::ordered_json sums = nlohmann::ordered_json::array();
  if (!json)
    std::cout << absl::StrFormat("%-12s %-16s %10s %16s\n", "to", "kind", "messages", "bytes");
  for (const auto& [key, sum] : summary.sums) {
    sums.push_back({{"to", key.first},
                    {"kind", key.second},
                    {"messages", sum.messages},
                    {"bytes", sum.bytes}});
    if (json) continue;
    std::cout << absl::StrFormat("%-12s %-16s %10d %16d\n", key.first, key.second, sum.messages,
                                 sum.bytes);
  }
  if (json) {
    std::cout << nlohmann::ordered_json{{"records", summary.records},
                                        {"head", base::ToHex(summary.head)},
                                        {"sums", sums}}
                     .dump()
              << "\n";
  } else {
    std::cout << absl::StrFormat("%d records, steps %d to %d, chain intact, head %s\n",
                                 summary.records, summary.first_step, summary.last_step,
                                 base::ToHex(summary.head));
  }
  return absl::OkStatus();
}

}  // namespace

void AddLedger(CLI::App& app, absl::Status& result) {
  struct Flags {
    std::string path;
    bool json = false;
  };
  const auto flags = std::make_shared<Flags>();
  CLI::App* ledger = app.add_subcommand("ledger", "Check a ledger and sum up what left this party");
  ledger->add_option("path", flags->path, "OUTPUT_DIR/ledger.jsonl")->required();
  ledger->add_flag("--json", flags->json, "One JSON object on stdout");
  ledger->callback([flags, &result] { result = Run(flags->path, flags->json); });
}

}  // namespace pcmoe::cli
