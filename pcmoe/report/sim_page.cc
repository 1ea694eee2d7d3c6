// pcmoe/report/sim_page.cc: the page of a `pcmoe sim`: the federation and what it is compared with.
#include <algorithm>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "pcmoe/report/pages.h"
#include "pcmoe/report/parts.h"

namespace pcmoe::report {
namespace {

namespace fs = std::filesystem;

// A name as sim gives them: it becomes part of a path.
bool IsName(const std::string& name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '-';
  });
}

absl::StatusOr<Mode> ReadMode(const fs::path& folder, const std::string& name,
                              const std::vector<std::string>& parties, const LedgerReader& ledger) {
  Mode mode{.name = name};
  const fs::path base = name == "federated" ? folder : folder / "compared_with" / name;
  for (const std::string& party : parties) {
    if (!fs::exists(base / party / "out" / "metrics.jsonl")) continue;
    PCMOE_ASSIGN_OR_RETURN(mode.processes.emplace_back(),
                           ReadRunFolder(base / party / "out", party, ledger));
  }
  // The central run is one process, in a folder of its own.
  if (mode.processes.empty() && fs::exists(base / "out" / "metrics.jsonl")) {
    PCMOE_ASSIGN_OR_RETURN(mode.processes.emplace_back(),
                           ReadRunFolder(base / "out", "all", ledger));
  }
  return mode;
}

std::string Percent(double share) { return NumberText("%.2f %%", 100 * share); }

double MeanAt(const Json& run, const char* key) {
  const Json& by_party = At(run, key);
  double sum = 0, count = 0;
  if (!by_party.is_object()) return std::nan("");
  for (const auto& [party, value] : by_party.items()) {
    if (!value.is_number()) continue;
    sum += value.get<double>();
    ++count;
  }
  return count > 0 ? sum / count : std::nan("");
}

Table SummaryTable(const Json& runs, const std::vector<std::string>& parties) {
  Table table{.header = {"", "mean loss"}};
  bool accuracies = false;
  for (const auto& [name, run] : runs.items()) {
    accuracies = accuracies || std::isfinite(MeanAt(run, "eval_accuracy"));
  }
  if (accuracies) table.header.push_back("mean accuracy");
  for (const char* name :
       {"states", "peak of the allocator", "peak of the process", "sent", "tokens/s", "time"}) {
    table.header.push_back(name);
  }
  if (parties.size() <= 8) {
    for (const std::string& party : parties) table.header.push_back("loss of " + party);
  }
  for (const auto& [name, run] : runs.items()) {
    std::vector<Cell> row{{name}, {NumberText("%.4f", NumberAt(run, "mean_eval_loss"))}};
    if (accuracies) row.push_back({Percent(MeanAt(run, "eval_accuracy"))});
    for (const char* key : {"states_bytes", "peak_allocated_bytes", "peak_resident_bytes"}) {
      row.push_back({BytesText(NumberAt(run, key))});
    }
    const double sent = NumberAt(run, "sent_bytes", 0);
    row.push_back({sent > 0 ? BytesText(sent) : "-"});
    row.push_back({NumberText("%.0f", NumberAt(run, "tokens_per_s"))});
    row.push_back({NumberText("%.0f s", NumberAt(run, "wall_s"))});
    for (size_t p = 0; parties.size() <= 8 && p < parties.size(); ++p) {
      const double accuracy = NumberAt(At(run, "eval_accuracy"), parties[p].c_str());
      row.push_back({NumberText("%.4f", NumberAt(At(run, "eval_loss"), parties[p].c_str())),
                     std::isfinite(accuracy) ? Percent(accuracy) : ""});
    }
    table.rows.push_back(std::move(row));
  }
  return table;
}

}  // namespace

absl::StatusOr<Page> SimPage(const fs::path& folder, const LedgerReader& ledger) {
  auto result = ReadObject(folder / "result.json");
  if (absl::IsNotFound(result.status())) {
    return absl::NotFoundError(
        absl::StrCat(folder.string(),
                     ": the sim has not ended; a party's own folder can be reported: PARTY/out"));
  }
  PCMOE_RETURN_IF_ERROR(result.status());
  const std::vector<std::string> parties = TextsAt(*result, "parties");
  const Json& runs = At(*result, "runs");
  if (!runs.is_object() || !std::all_of(parties.begin(), parties.end(), IsName)) {
    return absl::InvalidArgumentError(
        absl::StrCat((folder / "result.json").string(), ": is not the result of a pcmoe sim"));
  }
  std::vector<Mode> modes;
  for (const auto& [name, run] : runs.items()) {
    if (!IsName(name)) continue;
    PCMOE_ASSIGN_OR_RETURN(Mode mode, ReadMode(folder, name, parties, ledger));
    modes.push_back(std::move(mode));
  }
  Json about;
  if (fs::exists(folder / "about.json")) {
    PCMOE_ASSIGN_OR_RETURN(about, ReadObject(folder / "about.json"));
  }
  Page page{.title = absl::StrFormat("pcmoe sim: %d %s", parties.size(),
                                     parties.size() == 1 ? "party" : "parties"),
            .lead = TextAt(about, "description")};
  Section summary{.title = "Summary"};
  for (const std::string& verdict : TextsAt(*result, "verdicts")) {
    summary.blocks.emplace_back(Text{verdict});
  }
  Table table = SummaryTable(runs, parties);
  table.caption =
      "Loss: nats a token on the evaluation files. Memory: of the largest process. Sent and "
      "tokens/s: all processes together.";
  summary.blocks.emplace_back(std::move(table));
  page.sections.push_back(std::move(summary));
  AddRest(modes, folder, about, page);
  return page;
}

}  // namespace pcmoe::report
