// pcmoe/report/page.h: a page as plain data: sections of text, tables, charts and heat maps; and
// the one self-contained HTML file that it becomes.
#pragma once

#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace pcmoe::report {

/// What a cell tells besides its text; it is never told by colour alone.
enum class Tone { kPlain, kGood, kMiddle, kBad };

/// A table's cell; `note` is a second line in small print.
struct Cell {
  std::string text;
  std::string note = "";
  Tone tone = Tone::kPlain;
};

/// The first column heads its rows and stands to the left, `numbers` says whether the others stand
/// to the right.
struct Table {
  std::string caption;
  std::vector<std::string> header;
  std::vector<std::vector<Cell>> rows;
  bool numbers = true;
};

/// How a chart writes its values.
enum class Unit { kPlain, kBytes, kPercent };

/// A curve, or the bars of one colour.
struct Series {
  std::string name;
  std::vector<std::pair<double, double>> points;  ///< Curves: (x, y), x ascending.
  std::vector<double> bars;                       ///< Bars: a value a category; NaN: none.
};

/// Drawn by script; the same numbers are in a folded table below, for readers without it.
struct Chart {
  enum class Kind { kCurves, kBars };
  Kind kind = Kind::kCurves;
  std::string title, x_title, y_title;
  Unit unit = Unit::kPlain;
  std::vector<std::string> categories;  ///< Of bars.
  bool stacked = false;                 ///< Bars on top of each other.
  std::vector<Series> series;
};

/// One chart over the width of the page; or several small ones, side by side where there is room.
struct Charts {
  std::vector<Chart> charts;
};

/// Values against an even share, which is 1, as colours; a row a layer. Needs no script.
struct HeatMap {
  std::string title, row_name, column_name;
  std::vector<std::string> rows;
  std::vector<std::vector<double>> values;
};

/// A paragraph; `tone` as in a cell.
struct Text {
  std::string text;
  Tone tone = Tone::kPlain;
};

/// Commands, a line each, as they were typed.
struct Commands {
  std::vector<std::string> lines;
};

/// Blocks behind a line that opens them.
struct Folded;

using Block = std::variant<Text, Table, Charts, HeatMap, Commands, Folded>;

struct Folded {
  std::string title;
  std::vector<Block> blocks;
};

struct Section {
  std::string title;
  std::vector<Block> blocks;
};

struct Page {
  std::string title;
  std::string lead;  ///< A sentence below the title.
  std::vector<Section> sections;
  std::string foot;
};

/// The page with its style and scripts inside: it asks for nothing, and its own policy forbids it
/// to. All text is escaped. A curve keeps at most `max_points` points (means of neighbours).
std::string ToHtml(const Page& page, size_t max_points);

/// For people: "1.23 GB", "12.3 MB", "4.5 kB"; "-" when not finite.
std::string BytesText(double bytes);
/// printf's `format` for a finite value, else "-".
std::string NumberText(const char* format, double value);

}  // namespace pcmoe::report
