// pcmoe/report/assets.h: files put into the program at build time (see CMakeLists.txt).
#pragma once

#include <string_view>

namespace pcmoe::report {

extern const std::string_view kPageCss;  ///< page.css
extern const std::string_view kPageJs;   ///< page.js
extern const std::string_view kChartJs;  ///< Chart.js, minified; MIT; Debian's libjs-chart.js.

}  // namespace pcmoe::report
