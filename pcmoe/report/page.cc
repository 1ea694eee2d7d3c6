// pcmoe/report/page.cc: see page.h: everything but charts and heat maps.
#include "pcmoe/report/page.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "pcmoe/report/assets.h"
#include "pcmoe/report/html.h"

namespace pcmoe::report {
namespace {

const char* ClassOf(Tone tone) {
  switch (tone) {
    case Tone::kPlain:
      break;
    case Tone::kGood:
      return " class=\"good\"";
    case Tone::kMiddle:
      return " class=\"middle\"";
    case Tone::kBad:
      return " class=\"bad\"";
  }
  return "";
}

// Debian's abseil has a string_view of its own.
absl::string_view TextOf(std::string_view text) { return {text.data(), text.size()}; }

std::string Content(const Cell& cell) {
  if (cell.note.empty()) return Escaped(cell.text);
  return absl::StrCat(Escaped(cell.text), "<small>", Escaped(cell.note), "</small>");
}

// Renders blocks one after another; counts charts, so that each finds its data.
class Renderer {
 public:
  explicit Renderer(size_t max_points) : max_points_(max_points) {}

  std::string operator()(const Text& text) const {
    return absl::StrCat("<p", ClassOf(text.tone), ">", Escaped(text.text), "</p>\n");
  }
  std::string operator()(const Table& table) const { return HtmlOf(table); }
  std::string operator()(const HeatMap& map) const { return HtmlOf(map); }
  std::string operator()(const Charts& charts) {
    std::string html =
        charts.charts.size() > 1 ? "<div class=\"charts many\">\n" : "<div class=\"charts\">\n";
    for (const Chart& chart : charts.charts) {
      absl::StrAppend(&html, HtmlOf(chart, absl::StrCat("chart-", ++charts_), max_points_));
    }
    return html + "</div>\n";
  }
  std::string operator()(const Commands& commands) const {
    std::string html = "<pre>";
    for (const std::string& line : commands.lines) absl::StrAppend(&html, Escaped(line), "\n");
    return html + "</pre>\n";
  }
  std::string operator()(const Folded& folded) {
    return absl::StrCat("<details><summary>", Escaped(folded.title), "</summary>\n",
                        All(folded.blocks), "</details>\n");
  }
  std::string All(const std::vector<Block>& blocks) {
    std::string html;
    for (const Block& block : blocks) html += std::visit(*this, block);
    return html;
  }

 private:
  size_t max_points_;
  int charts_ = 0;
};

// The policy makes the browser refuse every request that the page could make.
constexpr char kHead[] =
    "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:\">\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
    "<link rel=\"icon\" href=\"data:,\">\n";

}  // namespace

std::string Escaped(absl::string_view text) {
  return absl::StrReplaceAll(
      text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}, {"'", "&#39;"}});
}

std::string BytesText(double bytes) {
  if (!std::isfinite(bytes)) return "-";
  if (bytes >= 1e12) return absl::StrFormat("%.2f TB", bytes / 1e12);
  if (bytes >= 1e9) return absl::StrFormat("%.2f GB", bytes / 1e9);
  if (bytes >= 1e6) return absl::StrFormat("%.1f MB", bytes / 1e6);
  if (bytes >= 1e3) return absl::StrFormat("%.1f kB", bytes / 1e3);
  return absl::StrFormat("%.0f B", bytes);
}

std::string NumberText(const char* format, double value) {
  if (!std::isfinite(value)) return "-";
  char text[64];
  std::snprintf(text, sizeof(text), format, value);
  return text;
}

std::string HtmlOf(const Table& table) {
  std::string html;
  // Not a caption element: it would be as wide as the table, and scroll with it on a phone.
  if (!table.caption.empty()) {
    absl::StrAppend(&html, "<p class=\"note\">", Escaped(table.caption), "</p>\n");
  }
  // Sentences in many columns are read one below the other on a phone.
  const bool stack = !table.numbers && table.header.size() > 2;
  absl::StrAppend(&html, "<div class=\"scroll\" tabindex=\"0\"><table class=\"",
                  table.numbers ? "n"
                  : stack       ? "w stack"
                                : "w",
                  "\">\n<thead><tr>");
  for (const std::string& name : table.header) {
    absl::StrAppend(&html, "<th scope=\"col\">", Escaped(name), "</th>");
  }
  html += "</tr></thead>\n<tbody>\n";
  for (const std::vector<Cell>& row : table.rows) {
    html += "<tr>";
    for (size_t i = 0; i < row.size(); ++i) {
      if (i == 0) {
        absl::StrAppend(&html, "<th scope=\"row\"", ClassOf(row[i].tone), ">", Content(row[i]),
                        "</th>");
      } else {
        const std::string label =
            stack && i < table.header.size()
                ? absl::StrCat(" data-label=\"", Escaped(table.header[i]), "\"")
                : "";
        absl::StrAppend(&html, "<td", ClassOf(row[i].tone), label, ">", Content(row[i]), "</td>");
      }
    }
    html += "</tr>\n";
  }
  return html + "</tbody></table></div>\n";
}

std::string ToHtml(const Page& page, size_t max_points) {
  std::string html = kHead;
  absl::StrAppend(&html, "<title>", Escaped(page.title), "</title>\n<style>\n", TextOf(kPageCss),
                  "</style>\n</head>\n<body>\n<header><h1>", Escaped(page.title),
                  "</h1>\n<p class=\"lead\">", Escaped(page.lead), "</p></header>\n<nav>");
  for (size_t i = 0; i < page.sections.size(); ++i) {
    absl::StrAppend(&html, "<a href=\"#s", i, "\">", Escaped(page.sections[i].title), "</a>");
  }
  html += "</nav>\n<main>\n";
  Renderer renderer(max_points);
  for (size_t i = 0; i < page.sections.size(); ++i) {
    const Section& section = page.sections[i];
    absl::StrAppend(&html, "<section><h2 id=\"s", i, "\">", Escaped(section.title), "</h2>\n",
                    renderer.All(section.blocks), "</section>\n");
  }
  absl::StrAppend(&html, "</main>\n<footer>", Escaped(page.foot), "</footer>\n<script>\n",
                  TextOf(kChartJs), "\n</script>\n<script>\n", TextOf(kPageJs),
                  "</script>\n</body>\n</html>\n");
  return html;
}

}  // namespace pcmoe::report
