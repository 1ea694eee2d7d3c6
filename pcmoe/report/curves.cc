// pcmoe/report/curves.cc: loss and accuracy of modes over the steps.
#include <set>

#include "pcmoe/report/parts.h"

namespace pcmoe::report {
namespace {

using Files = std::set<std::string>;
using Points = std::vector<std::pair<double, double>>;

// Whose evaluation files are whose, as the processes of single parties show it.
std::map<std::string, Files> FilesByParty(const std::vector<Mode>& modes) {
  std::map<std::string, Files> files;
  for (const Mode& mode : modes) {
    for (const RunFolder& run : mode.processes) {
      if (run.name == "all" && modes.size() > 1) continue;
      for (const auto& [step, by_file] : run.evaluations) {
        for (const auto& [file, point] : by_file) files[run.name].insert(file);
      }
    }
  }
  return files;
}

// The mean of these files' values, by what each counts; NaN without one.
double MeanOf(const std::map<std::string, EvalPoint>& by_file, const Files& files,
              double EvalPoint::* what) {
  double sum = 0, weights = 0;
  for (const auto& [file, point] : by_file) {
    if (!files.contains(file) || !std::isfinite(point.*what)) continue;
    const bool of_examples = what != &EvalPoint::loss && point.examples > 0;
    const double weight = of_examples ? point.examples : std::max(1.0, point.tokens);
    sum += weight * (point.*what);
    weights += weight;
  }
  return weights > 0 ? sum / weights : std::nan("");
}

// By step: the mean over the parties that were evaluated, each counting alike.
std::map<int64_t, double> Evaluations(const std::map<std::string, Files>& files, const Mode& mode,
                                      double EvalPoint::* what) {
  std::map<int64_t, std::pair<double, int64_t>> sums;
  for (const RunFolder& run : mode.processes) {
    for (const auto& [step, by_file] : run.evaluations) {
      for (const auto& [party, own] : files) {
        if (files.contains(run.name) && party != run.name) continue;
        const double value = MeanOf(by_file, own, what);
        if (!std::isfinite(value)) continue;
        sums[step].first += value;
        ++sums[step].second;
      }
    }
  }
  std::map<int64_t, double> means;
  for (const auto& [step, sum] : sums) means[step] = sum.first / static_cast<double>(sum.second);
  return means;
}

// By step: the mean over all tokens of the mode's processes.
Points TrainLoss(const Mode& mode) {
  std::map<int64_t, std::pair<double, double>> sums;
  for (const RunFolder& run : mode.processes) {
    for (const auto& [step, point] : run.train) {
      if (point.tokens <= 0 || !std::isfinite(point.loss)) continue;
      sums[step].first += point.loss * point.tokens;
      sums[step].second += point.tokens;
    }
  }
  Points points;
  for (const auto& [step, sum] : sums) {
    points.emplace_back(static_cast<double>(step), sum.first / sum.second);
  }
  return points;
}

Chart EvaluationChart(const std::vector<Mode>& modes, const std::string& title, Unit unit,
                      double EvalPoint::* what) {
  Chart chart{.title = title, .x_title = "step", .unit = unit};
  const std::map<std::string, Files> files = FilesByParty(modes);
  for (const Mode& mode : modes) {
    Series series{.name = mode.name};
    for (const auto& [step, value] : Evaluations(files, mode, what)) {
      series.points.emplace_back(static_cast<double>(step),
                                 unit == Unit::kPercent ? 100 * value : value);
    }
    if (!series.points.empty()) chart.series.push_back(std::move(series));
  }
  return chart;
}

bool HasCurve(const Chart& chart) {
  return std::any_of(chart.series.begin(), chart.series.end(),
                     [](const Series& series) { return series.points.size() > 1; });
}

}  // namespace

double LastEvaluation(const std::vector<Mode>& modes, const Mode& mode, double EvalPoint::* what) {
  const std::map<int64_t, double> means = Evaluations(FilesByParty(modes), mode, what);
  return means.empty() ? std::nan("") : means.rbegin()->second;
}

std::optional<Section> CurvesSection(const std::vector<Mode>& modes) {
  Section section{.title = "Curves"};
  Chart train{.title = "Training loss, nats a token, mean over all tokens of a step",
              .x_title = "step"};
  for (const Mode& mode : modes) {
    Series series{.name = mode.name, .points = TrainLoss(mode)};
    if (!series.points.empty()) train.series.push_back(std::move(series));
  }
  if (!train.series.empty()) section.blocks.emplace_back(Charts{{std::move(train)}});
  // A single point is in the summary already.
  for (const auto& [title, unit, what] :
       {std::tuple("Evaluation loss, nats a token", Unit::kPlain, &EvalPoint::loss),
        std::tuple("Accuracy", Unit::kPercent, &EvalPoint::accuracy),
        std::tuple("Accuracy, log-likelihoods by length", Unit::kPercent,
                   &EvalPoint::accuracy_norm)}) {
    const char* of = modes.size() > 1 ? ", mean over the parties" : "";
    Chart chart = EvaluationChart(modes, absl::StrCat(title, of), unit, what);
    if (HasCurve(chart)) section.blocks.emplace_back(Charts{{std::move(chart)}});
  }
  if (section.blocks.empty()) return std::nullopt;
  return section;
}

}  // namespace pcmoe::report
