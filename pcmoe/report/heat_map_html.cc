// pcmoe/report/heat_map_html.cc: a heat map: a table of coloured numbers, or, with many columns, a
// drawing whose cells are as wide as the page allows.
#include <algorithm>
#include <array>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "pcmoe/report/html.h"

namespace pcmoe::report {
namespace {

constexpr size_t kMaxNumberedColumns = 16;
constexpr int kClasses = 7;  // an eighth of even, .. even, .. eight times even: page.css's h0 to h6

int ClassOf(double value) {
  if (!(value > 0)) return 0;
  return std::clamp(static_cast<int>(std::lround(std::log2(value))), -3, 3) + 3;
}

std::string Numbered(const HeatMap& map) {
  std::string html =
      "<div class=\"scroll\" tabindex=\"0\"><table class=\"heat\"><thead><tr><td></td>";
  for (size_t i = 0; i < map.values[0].size(); ++i) {
    absl::StrAppend(&html, "<th scope=\"col\">", i, "</th>");
  }
  html += "</tr></thead><tbody>\n";
  for (size_t r = 0; r < map.values.size(); ++r) {
    absl::StrAppend(&html, "<tr><th scope=\"row\">", Escaped(map.rows[r]), "</th>");
    for (const double value : map.values[r]) {
      absl::StrAppendFormat(&html, "<td class=\"h%d\">%.2f</td>", ClassOf(value), value);
    }
    html += "</tr>\n";
  }
  return html + "</tbody></table></div>\n";
}

// One path a colour: a page of 50 layers by 128 experts stays small.
std::string Drawn(const HeatMap& map) {
  size_t columns = 0;
  std::array<std::string, kClasses> paths;
  for (size_t r = 0; r < map.values.size(); ++r) {
    columns = std::max(columns, map.values[r].size());
    for (size_t c = 0; c < map.values[r].size(); ++c) {
      absl::StrAppend(&paths[static_cast<size_t>(ClassOf(map.values[r][c]))], "M", c, " ", r,
                      "h1v1h-1z");
    }
  }
  std::string html = absl::StrFormat(
      "<svg viewBox=\"0 0 %d %d\" preserveAspectRatio=\"none\" shape-rendering=\"crispEdges\" "
      "role=\"img\" aria-label=\"%s\" style=\"height:%dpx\">",
      columns, map.values.size(), Escaped(map.title), 14 * map.values.size());
  for (int k = 0; k < kClasses; ++k) {
    if (paths[static_cast<size_t>(k)].empty()) continue;
    absl::StrAppend(&html, "<path class=\"h", k, "\" d=\"", paths[static_cast<size_t>(k)], "\"/>");
  }
  return html + "</svg>\n";
}

// What a row says in numbers.
std::vector<Cell> RowOf(const std::string& name, const std::vector<double>& values) {
  const auto [least, most] = std::minmax_element(values.begin(), values.end());
  double sum = 0, entropy = 0;
  for (const double value : values) sum += value;
  for (const double value : values) {
    if (value > 0) entropy -= value / sum * std::log(value / sum);
  }
  return {{name},
          {absl::StrFormat("%.2f", *most), absl::StrCat("no. ", most - values.begin())},
          {absl::StrFormat("%.2f", *least), absl::StrCat("no. ", least - values.begin())},
          {absl::StrCat(std::count(values.begin(), values.end(), 0.0))},
          {absl::StrFormat("%.1f of %d", std::exp(entropy), values.size())}};
}

}  // namespace

std::string HtmlOf(const HeatMap& map) {
  if (map.values.empty() || map.values[0].empty()) return "";
  std::string html =
      absl::StrCat("<figure class=\"heat\"><figcaption>", Escaped(map.title), "</figcaption>\n");
  const bool numbered = map.values[0].size() <= kMaxNumberedColumns;
  absl::StrAppend(&html, "<small>", Escaped(map.row_name),
                  numbered ? "s from top to bottom, "
                           : absl::StrCat("s ", Escaped(map.rows.front()), " to ",
                                          Escaped(map.rows.back()), " from top to bottom, "),
                  Escaped(map.column_name), "s 0 to ", map.values[0].size() - 1,
                  " from left to right; 1 is an even share</small>\n",
                  numbered ? Numbered(map) : Drawn(map), "<ul class=\"key\">");
  const std::array<const char*, kClasses> key = {"1/8 or less", "1/4", "1/2",      "1",
                                                 "2",           "4",   "8 or more"};
  for (int k = 0; k < kClasses; ++k) {
    absl::StrAppend(&html, "<li class=\"h", k, "\">", key[static_cast<size_t>(k)], "</li>");
  }
  Table table{.header = {map.row_name, "most used", "least used", "unused", "effective number"}};
  for (size_t r = 0; r < map.values.size(); ++r) {
    table.rows.push_back(RowOf(map.rows[r], map.values[r]));
  }
  return absl::StrCat(html, "</ul>\n<details><summary>Numbers</summary>\n", HtmlOf(table),
                      "</details></figure>\n");
}

}  // namespace pcmoe::report
