// pcmoe/report/page_test.cc: a page escapes all that it is given, asks for nothing, and is readable
// without its script.
#include "pcmoe/report/page.h"

#include <nlohmann/json.hpp>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "pcmoe/report/assets.h"
#include "pcmoe/report/html.h"

namespace pcmoe::report {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr char kHostile[] = "</script><script>alert('x')</script><b onload=\"y\">&amp;";

// The page of one block in one section.
std::string PageWith(Block block, size_t max_points = 100) {
  return ToHtml({.title = "t", .sections = {{"s", {std::move(block)}}}}, max_points);
}

std::string DataIn(const std::string& html) {
  const std::string open = "<script type=\"application/json\" id=\"chart-1\">";
  const size_t begin = html.find(open) + open.size();
  return html.substr(begin, html.find("</script>", begin) - begin);
}

TEST(PageTest, EscapesTextWhereverItStands) {
  Chart chart{.title = kHostile, .x_title = kHostile, .series = {{.name = kHostile}}};
  chart.series[0].points = {{0, 1}};
  const Page page{.title = kHostile,
                  .lead = kHostile,
                  .sections = {{kHostile,
                                {Text{kHostile}, Commands{{kHostile}}, Charts{{chart}},
                                 Table{.caption = kHostile,
                                       .header = {kHostile},
                                       .rows = {{{kHostile, kHostile}, {kHostile}}}},
                                 HeatMap{kHostile, kHostile, kHostile, {kHostile}, {{1, 1}}},
                                 Folded{kHostile, {Text{kHostile}}}}}},
                  .foot = kHostile};
  const std::string html = ToHtml(page, 100);
  EXPECT_THAT(html, Not(HasSubstr("alert('x')</script>")));
  EXPECT_THAT(html, Not(HasSubstr("<b onload")));
  EXPECT_THAT(html, HasSubstr("&lt;/script&gt;&lt;script&gt;alert(&#39;x&#39;)"));
  // The data can be read back as it was.
  EXPECT_THAT(DataIn(html), Not(HasSubstr("<")));
  const auto data = nlohmann::json::parse(DataIn(html));
  EXPECT_EQ(data["series"][0]["name"], kHostile);
}

TEST(PageTest, HasNoAddressToAsk) {
  const std::string html = PageWith(Text{"x"});
  for (const char* attribute : {" src=", "url(", "@import", "<link rel=\"stylesheet\""}) {
    EXPECT_THAT(html.substr(0, html.find("<script>")), Not(HasSubstr(attribute)));
  }
  EXPECT_THAT(html, HasSubstr("default-src 'none'"));
  EXPECT_THAT(std::string(kChartJs), Not(HasSubstr("</script")));
  EXPECT_THAT(std::string(kPageJs), Not(HasSubstr("</script")));
  EXPECT_THAT(std::string(kChartJs), HasSubstr("Chart.js v3"));
  EXPECT_GT(kPageCss.size(), 1000);
}

TEST(PageTest, ChartsAreTablesToo) {
  Chart chart{.x_title = "step", .series = {{.name = "a"}, {.name = "b"}}};
  for (int i = 0; i <= 100; ++i) chart.series[0].points.emplace_back(i, 10 - 0.05 * i);
  chart.series[1].points = {{100, 3.25}};
  const std::string html = PageWith(Charts{{chart}});
  EXPECT_THAT(html, HasSubstr("<th scope=\"row\">0</th><td>10</td><td>-</td>"));
  EXPECT_THAT(html, HasSubstr("<th scope=\"row\">100</th><td>5</td><td>3.25</td>"));
}

TEST(PageTest, NumbersThatAreNoneAreNullInData) {
  Chart chart{.kind = Chart::Kind::kBars, .unit = Unit::kBytes, .categories = {"x", "y"}};
  chart.series = {{.name = "a", .bars = {std::nan(""), 1.5e9}}};
  const std::string html = PageWith(Charts{{chart}});
  const auto data = nlohmann::json::parse(DataIn(html));
  EXPECT_TRUE(data["series"][0]["bars"][0].is_null());
  EXPECT_EQ(data["series"][0]["bars"][1], 1.5e9);
  EXPECT_THAT(html, HasSubstr("<td>1.50 GB</td>"));
}

TEST(PageTest, ThinnedKeepsMeansAndTheEnd) {
  std::vector<std::pair<double, double>> points;
  for (int i = 0; i < 1000; ++i) points.emplace_back(i, i % 2 == 0 ? 1 : 3);
  const auto thin = Thinned(points, 10);
  ASSERT_EQ(thin.size(), 10);
  EXPECT_NEAR(thin[3].second, 2, 0.02);
  EXPECT_EQ(thin.back(), points.back());
  for (size_t i = 1; i < thin.size(); ++i) EXPECT_LT(thin[i - 1].first, thin[i].first);
  EXPECT_EQ(Thinned(points, 1000), points);
}

TEST(PageTest, HeatMapOfFewExpertsHasNumbersAndOfManyIsDrawn) {
  HeatMap map{"title", "layer", "expert", {"0"}, {{0, 0.5, 1, 2.5}}};
  const std::string few = HtmlOf(map);
  EXPECT_THAT(few, HasSubstr("<td class=\"h0\">0.00</td><td class=\"h2\">0.50</td>"
                             "<td class=\"h3\">1.00</td><td class=\"h4\">2.50</td>"));
  map.rows = {"0", "2"};
  map.values.assign(2, std::vector<double>(128, 1));
  const std::string many = HtmlOf(map);
  EXPECT_THAT(many, HasSubstr("viewBox=\"0 0 128 2\""));
  EXPECT_THAT(many, HasSubstr("M127 1h1v1h-1z"));
  EXPECT_THAT(many, HasSubstr("128.0 of 128"));
}

TEST(PageTest, BytesAreWrittenForPeople) {
  EXPECT_EQ(BytesText(0), "0 B");
  EXPECT_EQ(BytesText(1234), "1.2 kB");
  EXPECT_EQ(BytesText(5.67e7), "56.7 MB");
  EXPECT_EQ(BytesText(1.2e12), "1.20 TB");
  EXPECT_EQ(BytesText(std::nan("")), "-");
}

}  // namespace
}  // namespace pcmoe::report
