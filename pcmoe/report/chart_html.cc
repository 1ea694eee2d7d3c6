// pcmoe/report/chart_html.cc: a chart: a canvas, its data as JSON, and its numbers as a table.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "pcmoe/report/html.h"

namespace pcmoe::report {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMaxTableRows = 12;

const char* NameOf(Unit unit) {
  switch (unit) {
    case Unit::kPlain:
      break;
    case Unit::kBytes:
      return "bytes";
    case Unit::kPercent:
      return "percent";
  }
  return "plain";
}

std::string Written(Unit unit, double value) {
  if (unit == Unit::kBytes) return BytesText(value);
  return NumberText(unit == Unit::kPercent ? "%.4g %%" : "%.5g", value);
}

// JSON has no NaN; seven digits are more than a screen shows.
Json Number(double value) {
  if (!std::isfinite(value)) return nullptr;
  const std::string text = NumberText("%.7g", value);
  return Json::parse(text);
}

// Nothing in the text can end the element that holds it.
std::string Inert(const Json& json) {
  const std::string text = json.dump(-1, ' ', false, Json::error_handler_t::replace);
  return absl::StrReplaceAll(text, {{"<", "\\u003c"}, {">", "\\u003e"}, {"&", "\\u0026"}});
}

Json DataOf(const Chart& chart, size_t max_points) {
  Json series = Json::array();
  for (const Series& one : chart.series) {
    Json json{{"name", one.name}};
    if (chart.kind == Chart::Kind::kCurves) {
      Json points = Json::array();
      for (const auto& [x, y] : Thinned(one.points, max_points)) {
        points.push_back({Number(x), Number(y)});
      }
      json["points"] = std::move(points);
    } else {
      Json bars = Json::array();
      for (const double value : one.bars) bars.push_back(Number(value));
      json["bars"] = std::move(bars);
    }
    series.push_back(std::move(json));
  }
  return {{"kind", chart.kind == Chart::Kind::kCurves ? "curves" : "bars"},
          {"x_title", chart.x_title},
          {"y_title", chart.y_title},
          {"unit", NameOf(chart.unit)},
          {"stacked", chart.stacked},
          {"categories", chart.categories},
          {"series", std::move(series)}};
}

// Some of the x that occur, evenly spread, the first and the last among them.
std::vector<double> SomeX(const Chart& chart) {
  std::set<double> all;
  for (const Series& one : chart.series) {
    for (const auto& [x, y] : one.points) all.insert(x);
  }
  const std::vector<double> sorted(all.begin(), all.end());
  if (sorted.size() <= kMaxTableRows) return sorted;
  std::vector<double> some;
  for (size_t i = 0; i < kMaxTableRows; ++i) {
    some.push_back(sorted[i * (sorted.size() - 1) / (kMaxTableRows - 1)]);
  }
  return some;
}

Table NumbersOf(const Chart& chart) {
  Table table;
  const bool curves = chart.kind == Chart::Kind::kCurves;
  table.header.push_back(curves ? chart.x_title : "");
  for (const Series& one : chart.series) table.header.push_back(one.name);
  if (!curves) {
    for (size_t i = 0; i < chart.categories.size(); ++i) {
      std::vector<Cell> row{{chart.categories[i]}};
      for (const Series& one : chart.series) {
        row.push_back({Written(chart.unit, i < one.bars.size() ? one.bars[i] : std::nan(""))});
      }
      table.rows.push_back(std::move(row));
    }
    return table;
  }
  for (const double x : SomeX(chart)) {
    std::vector<Cell> row{{NumberText("%.6g", x)}};
    for (const Series& one : chart.series) {
      const auto found =
          std::lower_bound(one.points.begin(), one.points.end(), std::pair(x, -HUGE_VAL));
      const bool there = found != one.points.end() && found->first == x;
      row.push_back({Written(chart.unit, there ? found->second : std::nan(""))});
    }
    table.rows.push_back(std::move(row));
  }
  return table;
}

}  // namespace

std::vector<std::pair<double, double>> Thinned(const std::vector<std::pair<double, double>>& points,
                                               size_t max_points) {
  if (points.size() <= max_points || max_points < 2) return points;
  std::vector<std::pair<double, double>> result;
  const size_t all = points.size() - 1;  // the last one stays as it is
  const size_t groups = max_points - 1;
  for (size_t g = 0; g < groups; ++g) {
    const size_t begin = g * all / groups, end = (g + 1) * all / groups;
    double x = 0, y = 0;
    for (size_t i = begin; i < end; ++i) {
      x += points[i].first;
      y += points[i].second;
    }
    const auto count = static_cast<double>(end - begin);
    result.emplace_back(x / count, y / count);
  }
  result.push_back(points.back());
  return result;
}

std::string HtmlOf(const Chart& chart, const std::string& id, size_t max_points) {
  const bool bars = chart.kind == Chart::Kind::kBars;
  // A bar needs its height, however many there are; axis and legend need theirs.
  const size_t lines = chart.categories.size() * (chart.stacked ? 1 : chart.series.size());
  const std::string open =
      bars ? absl::StrCat("<figure class=\"bars\" style=\"--rows:",
                          120 + 20 * lines + 12 * chart.categories.size(), "px\">")
           : "<figure>";
  std::string html = absl::StrCat(open, "<figcaption>", Escaped(chart.title),
                                  "</figcaption>\n<div class=\"plot\"><canvas data-of=\"", id,
                                  "\" role=\"img\" aria-label=\"", Escaped(chart.title),
                                  "; numbers below\"></canvas></div>\n");
  absl::StrAppend(&html, "<script type=\"application/json\" id=\"", id, "\">",
                  Inert(DataOf(chart, max_points)),
                  "</script>\n<details open><summary>Numbers</summary>\n", HtmlOf(NumbersOf(chart)),
                  "</details></figure>\n");
  return html;
}

}  // namespace pcmoe::report
