// pcmoe/report/seven_page.cc: the page of a benchmark of modes by tasks (seven.json).
#include <algorithm>
#include <set>

#include "absl/strings/str_format.h"
#include "pcmoe/report/json_access.h"
#include "pcmoe/report/pages.h"
#include "pcmoe/report/parts.h"

namespace pcmoe::report {
namespace {

using Points = std::vector<std::pair<double, double>>;

struct SevenRun {
  double mean_accuracy = 0;
  std::map<std::string, double> accuracy;  // by party
  Json json;
};

struct Seven {
  std::vector<std::string> tasks;
  std::vector<std::string> modes;
  std::map<std::pair<std::string, std::string>, std::vector<SevenRun>> runs;  // by mode and task
};

// Means, and what they are means of.
struct Spread {
  double mean = std::nan(""), deviation = std::nan("");
  size_t count = 0;
};

Spread SpreadOf(const std::vector<double>& values) {
  Spread spread{.count = values.size()};
  if (values.empty()) return spread;
  spread.mean = 0;
  for (const double value : values) spread.mean += value / static_cast<double>(values.size());
  if (values.size() < 2) return spread;
  double squares = 0;
  for (const double value : values) squares += (value - spread.mean) * (value - spread.mean);
  spread.deviation = std::sqrt(squares / static_cast<double>(values.size() - 1));
  return spread;
}

absl::Status NotSeven(const std::filesystem::path& path, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(path.string(), ": ", what));
}

absl::StatusOr<Seven> ReadSeven(const Json& json, const std::filesystem::path& path) {
  Seven seven{.tasks = TextsAt(json, "tasks")};
  const Json& modes = At(json, "modes");
  const Json& runs = At(json, "runs");
  if (seven.tasks.empty() || !modes.is_array() || !runs.is_array()) {
    return NotSeven(path, "needs lists of tasks, modes and runs");
  }
  for (const Json& mode : modes) seven.modes.push_back(TextAt(mode, "name"));
  for (const Json& json_run : runs) {
    const std::string mode = TextAt(json_run, "mode"), task = TextAt(json_run, "task");
    if (std::find(seven.modes.begin(), seven.modes.end(), mode) == seven.modes.end() ||
        std::find(seven.tasks.begin(), seven.tasks.end(), task) == seven.tasks.end()) {
      return NotSeven(path, absl::StrCat("has a run of mode \"", mode, "\" and task \"", task,
                                         "\", which it does not list"));
    }
    SevenRun run{.mean_accuracy = NumberAt(json_run, "mean_accuracy"), .json = json_run};
    if (!std::isfinite(run.mean_accuracy)) {
      return NotSeven(path, absl::StrCat("a run of ", mode, " has no mean_accuracy"));
    }
    const Json& accuracy = At(json_run, "accuracy");
    if (accuracy.is_object()) {
      for (const auto& [party, value] : accuracy.items()) {
        if (value.is_number()) run.accuracy[party] = value.get<double>();
      }
    }
    seven.runs[{mode, task}].push_back(std::move(run));
  }
  return seven;
}

const std::vector<SevenRun>& RunsOf(const Seven& seven, const std::string& mode,
                                    const std::string& task) {
  static const std::vector<SevenRun> none;
  const auto found = seven.runs.find({mode, task});
  return found == seven.runs.end() ? none : found->second;
}

Spread OverSeeds(const std::vector<SevenRun>& runs) {
  std::vector<double> values;
  for (const SevenRun& run : runs) values.push_back(100 * run.mean_accuracy);
  return SpreadOf(values);
}

// "81.2 ± 0.4", and below it the least and the most of the parties' own means.
Cell AccuracyCell(const std::vector<SevenRun>& runs) {
  const Spread spread = OverSeeds(runs);
  if (spread.count == 0) return {"-"};
  Cell cell{NumberText("%.1f", spread.mean)};
  if (spread.count > 1) cell.text += NumberText(" \u00b1 %.1f", spread.deviation);
  std::map<std::string, std::vector<double>> by_party;
  for (const SevenRun& run : runs) {
    for (const auto& [party, value] : run.accuracy) by_party[party].push_back(100 * value);
  }
  double least = HUGE_VAL, most = -HUGE_VAL;
  for (const auto& [party, values] : by_party) {
    least = std::min(least, SpreadOf(values).mean);
    most = std::max(most, SpreadOf(values).mean);
  }
  if (by_party.size() > 1) cell.note = absl::StrFormat("%.1f to %.1f", least, most);
  return cell;
}

Table AccuracyTable(const Seven& seven) {
  Table table{.caption =
                  "Accuracy in %: mean over parties and seeds \u00b1 standard deviation over "
                  "the seeds (where there are several); below, the worst and the best party."};
  table.header = {"mode", "mean"};
  for (const std::string& task : seven.tasks) table.header.push_back(task);
  table.header.emplace_back("seeds");
  for (const std::string& mode : seven.modes) {
    std::vector<Cell> row{{mode}, {"-"}};
    double sum = 0;
    size_t tasks = 0, seeds = 0;
    for (const std::string& task : seven.tasks) {
      const std::vector<SevenRun>& runs = RunsOf(seven, mode, task);
      row.push_back(AccuracyCell(runs));
      seeds = std::max(seeds, runs.size());
      if (runs.empty()) continue;
      sum += OverSeeds(runs).mean;
      ++tasks;
    }
    // A mean over fewer tasks would be one of other things.
    if (tasks == seven.tasks.size()) {
      row[1].text = NumberText("%.2f", sum / static_cast<double>(tasks));
    }
    row.push_back({absl::StrCat(seeds)});
    table.rows.push_back(std::move(row));
  }
  return table;
}

double MeanOverRuns(const Seven& seven, const std::string& mode, const char* key) {
  std::vector<double> values;
  for (const std::string& task : seven.tasks) {
    for (const SevenRun& run : RunsOf(seven, mode, task)) {
      const double value = NumberAt(run.json, key);
      if (std::isfinite(value)) values.push_back(value);
    }
  }
  return SpreadOf(values).mean;
}

// The mean over the tasks of the steps to 95 % of central's accuracy, of the runs with a curve; if
// not all tasks get there, how many do: a mean over those alone would be one of the easier tasks.
std::string StepsText(const Seven& seven, const std::string& mode) {
  std::vector<double> there;
  bool any = false;
  for (const std::string& task : seven.tasks) {
    std::vector<double> steps;
    for (const SevenRun& run : RunsOf(seven, mode, task)) {
      if (At(run.json, "curve").size() > 1) steps.push_back(NumberAt(run.json, "steps_to_95"));
    }
    any = any || !steps.empty();
    const double mean = SpreadOf(steps).mean;  // not a number if one of them did not get there
    if (std::isfinite(mean)) there.push_back(mean);
  }
  if (!any) return "-";
  if (there.size() == seven.tasks.size()) return NumberText("%.0f", SpreadOf(there).mean);
  return absl::StrFormat("in %d of %d tasks", there.size(), seven.tasks.size());
}

Table CostTable(const Seven& seven) {
  Table table{.caption =
                  "Means over tasks and seeds. Memory: of the largest process; sent: all "
                  "parties together; steps to 95 % of what central reaches in the end, of "
                  "runs that were evaluated on the way, or how many tasks get there.",
              .header = {"mode", "states", "peak of the process", "sent", "time", "steps to 95 %"}};
  for (const std::string& mode : seven.modes) {
    const double sent = MeanOverRuns(seven, mode, "sent_bytes");
    table.rows.push_back({{mode},
                          {BytesText(MeanOverRuns(seven, mode, "states_bytes"))},
                          {BytesText(MeanOverRuns(seven, mode, "peak_resident_bytes"))},
                          {sent > 0 ? BytesText(sent) : "-"},
                          {NumberText("%.0f s", MeanOverRuns(seven, mode, "wall_s"))},
                          {StepsText(seven, mode)}});
  }
  return table;
}

// The mean over the seeds, by step; of the seeds that were evaluated most often, so that every
// point of a curve is of the same runs. `key` names a run's list of [step, value].
Points CurveOf(const std::vector<SevenRun>& runs, const char* key, double scale) {
  std::map<double, std::vector<double>> by_step;
  size_t most = 0;
  for (const SevenRun& run : runs) most = std::max(most, At(run.json, key).size());
  for (const SevenRun& run : runs) {
    const Json& curve = At(run.json, key);
    if (!curve.is_array() || curve.size() < most) continue;
    for (const Json& point : curve) {
      if (!point.is_array() || point.size() != 2 || !point[0].is_number() || !point[1].is_number())
        continue;
      by_step[point[0].get<double>()].push_back(scale * point[1].get<double>());
    }
  }
  Points points;
  for (const auto& [step, values] : by_step) points.emplace_back(step, SpreadOf(values).mean);
  return points;
}

// Adds `empty` with a curve of each mode; nothing if no mode has one.
void AddCurves(const Seven& seven, const std::string& task, const char* key, double scale,
               Chart empty, Charts& charts) {
  for (const std::string& mode : seven.modes) {
    // Empty ones keep their place, so that a mode has one colour in all charts.
    empty.series.push_back(
        {.name = mode, .points = CurveOf(RunsOf(seven, mode, task), key, scale)});
  }
  const bool any = std::any_of(empty.series.begin(), empty.series.end(),
                               [](const Series& one) { return !one.points.empty(); });
  if (any) charts.charts.push_back(std::move(empty));
}

Charts CurveCharts(const Seven& seven) {
  Charts charts;
  for (const std::string& task : seven.tasks) {
    AddCurves(
        seven, task, "curve", 100,
        {.title = absl::StrCat(task, ": accuracy"), .x_title = "step", .unit = Unit::kPercent},
        charts);
    AddCurves(seven, task, "loss_curve", 1,
              {.title = absl::StrCat(task, ": loss, nats a token"), .x_title = "step"}, charts);
  }
  return charts;
}

Chart MemoryChart(const Seven& seven, const char* title, const char* key) {
  Chart chart{.kind = Chart::Kind::kBars, .title = title, .unit = Unit::kBytes};
  chart.series.push_back({.name = title});
  for (const std::string& mode : seven.modes) {
    chart.categories.push_back(mode);
    chart.series[0].bars.push_back(MeanOverRuns(seven, mode, key));
  }
  return chart;
}

Table FiguresTable(const Json& figures) {
  Table table{.header = {"figure", "value", "must be", "reached"}};
  if (!figures.is_object()) return table;
  for (const auto& [name, figure] : figures.items()) {
    const Json& ok = At(figure, "ok");
    const bool reached = ok.is_boolean() && ok.get<bool>();
    table.rows.push_back({{name},
                          {NumberText("%.4g", NumberAt(figure, "value"))},
                          {NumberText("%.4g", NumberAt(figure, "must"))},
                          {reached ? "yes" : "no", "", reached ? Tone::kGood : Tone::kBad}});
  }
  return table;
}

Table ModesTable(const Json& modes) {
  Table table{.header = {"mode", "what it is"}, .numbers = false};
  for (const Json& mode : modes) {
    if (const std::string text = TextAt(mode, "description"); !text.empty()) {
      table.rows.push_back({{TextAt(mode, "name")}, {text}});
    }
  }
  return table;
}

}  // namespace

absl::StatusOr<Page> SevenPage(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "seven.json";
  PCMOE_ASSIGN_OR_RETURN(const Json json, ReadObject(path));
  PCMOE_ASSIGN_OR_RETURN(const Seven seven, ReadSeven(json, path));
  Page page{.title = TextAt(json, "title", "pcmoe: modes by tasks"),
            .lead = absl::StrFormat("%d modes, %d tasks, %d runs.", seven.modes.size(),
                                    seven.tasks.size(), At(json, "runs").size())};
  Section summary{.title = "Summary", .blocks = {AccuracyTable(seven)}};
  if (Table figures = FiguresTable(At(json, "figures")); !figures.rows.empty()) {
    summary.blocks.emplace_back(std::move(figures));
  }
  if (Table modes = ModesTable(At(json, "modes")); !modes.rows.empty()) {
    summary.blocks.emplace_back(std::move(modes));
  }
  for (const std::string& note : TextsAt(json, "notes")) summary.blocks.emplace_back(Text{note});
  page.sections.push_back(std::move(summary));
  if (Charts curves = CurveCharts(seven); !curves.charts.empty()) {
    page.sections.push_back({"Curves", {std::move(curves)}});
  }
  page.sections.push_back(
      {"Memory, bytes and time",
       {CostTable(seven), Charts{{MemoryChart(seven, "States", "states_bytes"),
                                  MemoryChart(seven, "Peak of the process", "peak_resident_bytes"),
                                  MemoryChart(seven, "Sent", "sent_bytes")}}}});
  Section made{.title = "How it was made"};
  if (const std::vector<std::string> commands = TextsAt(json, "commands"); !commands.empty()) {
    made.blocks.emplace_back(Commands{commands});
  }
  Table facts{.header = {"made with", ""}, .numbers = false};
  AddRows(At(json, "made_with"), facts);
  if (!facts.rows.empty()) made.blocks.emplace_back(std::move(facts));
  if (!made.blocks.empty()) page.sections.push_back(std::move(made));
  page.foot = "Made by pcmoe; it holds numbers and names, no text of anybody's data.";
  return page;
}

}  // namespace pcmoe::report
