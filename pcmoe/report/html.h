// pcmoe/report/html.h: pieces of a page as HTML; for page.cc alone.
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "pcmoe/report/page.h"

namespace pcmoe::report {

/// Text as it may stand in HTML, in an element or in a quoted attribute.
std::string Escaped(absl::string_view text);

std::string HtmlOf(const Table& table);

/// A chart's place, its data (`id` is the page's own) and its numbers.
std::string HtmlOf(const Chart& chart, const std::string& id, size_t max_points);
std::string HtmlOf(const HeatMap& map);

/// At most `max_points` points: means of neighbours, in x and y; the last point stays.
std::vector<std::pair<double, double>> Thinned(const std::vector<std::pair<double, double>>& points,
                                               size_t max_points);

}  // namespace pcmoe::report
