// pcmoe/report/run_page.cc: the page of one run's output_dir.
#include <algorithm>

#include "absl/strings/str_join.h"
#include "pcmoe/report/pages.h"
#include "pcmoe/report/parts.h"

namespace pcmoe::report {
namespace {

// One line of a run's summary, or none when there is nothing to say.
void AddRow(const char* name, const std::string& value, Table& table) {
  if (value != "-" && !value.empty()) table.rows.push_back({{name}, {value}});
}

// The last two parts of a path: the folder tells parties' files apart, the settings have it whole.
std::string ShortName(const std::filesystem::path& file) {
  return (file.parent_path().filename() / file.filename()).string();
}

Table EvaluationTable(const RunFolder& run) {
  Table table{.header = {"evaluated at the end", "loss", "tokens"}};
  if (run.evaluations.empty()) return table;
  const auto& by_file = run.evaluations.rbegin()->second;
  const bool accuracies = std::any_of(by_file.begin(), by_file.end(), [](const auto& entry) {
    return std::isfinite(entry.second.accuracy);
  });
  if (accuracies) table.header.insert(table.header.end(), {"accuracy", "by length", "examples"});
  for (const auto& [file, point] : by_file) {
    std::vector<Cell>& row = table.rows.emplace_back();
    row = {{ShortName(file)}, {NumberText("%.4f", point.loss)}, {NumberText("%.0f", point.tokens)}};
    if (!accuracies) continue;
    row.push_back({NumberText("%.2f %%", 100 * point.accuracy)});
    row.push_back({NumberText("%.2f %%", 100 * point.accuracy_norm)});
    row.push_back({NumberText("%.0f", point.examples)});
  }
  return table;
}

Section Summary(const RunFolder& run, const std::vector<Mode>& modes) {
  Section section{.title = "Summary"};
  if (run.result.is_null()) {
    section.blocks.emplace_back(
        Text{"The run has not ended: there is no result.json yet.", Tone::kMiddle});
  }
  Table table{.header = {"", ""}, .numbers = false};
  AddRow("steps", run.train.empty() ? "" : absl::StrCat(run.train.rbegin()->first), table);
  AddRow("training loss, last logged",
         run.train.empty() ? "" : NumberText("%.4f", run.train.rbegin()->second.loss), table);
  AddRow("evaluation loss", NumberText("%.4f", LastEvaluation(modes, modes[0], &EvalPoint::loss)),
         table);
  AddRow("accuracy",
         NumberText("%.2f %%", 100 * LastEvaluation(modes, modes[0], &EvalPoint::accuracy)), table);
  AddRow("states", BytesText(NumberAt(run.result, "states_bytes")), table);
  AddRow("peak of the allocator", BytesText(NumberAt(run.result, "peak_allocated_bytes")), table);
  AddRow("peak of the process", BytesText(NumberAt(run.result, "peak_resident_bytes")), table);
  AddRow("sent", BytesText(NumberAt(run.result, "sent_bytes")), table);
  AddRow("speed", NumberText("%.0f tokens/s", NumberAt(run.result, "tokens_per_s")), table);
  AddRow("attempts given up", run.failures > 0 ? absl::StrCat(run.failures) : "", table);
  section.blocks.emplace_back(std::move(table));
  Table evaluations = EvaluationTable(run);
  if (!evaluations.rows.empty()) section.blocks.emplace_back(std::move(evaluations));
  return section;
}

}  // namespace

absl::StatusOr<Page> RunPage(const std::filesystem::path& folder, const LedgerReader& ledger) {
  PCMOE_ASSIGN_OR_RETURN(RunFolder run, ReadRunFolder(folder, "", ledger));
  const Json about = run.about;
  const std::string name = run.name;
  const std::vector<std::string> parties = TextsAt(about, "parties");
  std::vector<Mode> modes;
  modes.push_back({.name = name});
  modes[0].processes.push_back(std::move(run));
  Page page{.title = absl::StrCat("pcmoe run: ", name),
            .lead = parties.size() > 1 ? absl::StrCat("One of ", parties.size(),
                                                      " parties: ", absl::StrJoin(parties, ", "),
                                                      ". ", TextAt(about, "description"))
                                       : TextAt(about, "description")};
  page.sections.push_back(Summary(modes[0].processes[0], modes));
  AddRest(modes, folder, about, page);
  return page;
}

}  // namespace pcmoe::report
