// pcmoe/audit/report_html.cc: the report as one self-contained page.
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "pcmoe/audit/report.h"

namespace pcmoe::audit {
namespace {

// On narrow screens a table's row is a card, and each cell says what its column is.
constexpr char kStyle[] = R"(
:root{color-scheme:light dark;--ink:#1c2126;--soft:#5b6670;--line:#d9dee3;--page:#fff;--card:#f6f8fa;
--bar:#3b6ea5;--bad:#b3261e;--mid:#8a5a00;--good:#1a7f37}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ec;--soft:#9aa5af;--line:#333b42;--page:#14181b;
--card:#1b2024;--bar:#6ea3d8;--bad:#ff8a80;--mid:#e0b050;--good:#6fcf87}}
*{box-sizing:border-box}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);max-width:76rem;
margin:1.5rem auto;padding:0 1rem;overflow-wrap:anywhere}
h1{font-size:1.6rem;line-height:1.2}h2{font-size:1.2rem;margin-top:2rem}
table{border-collapse:collapse;width:100%;margin:1rem 0}
th,td{text-align:left;vertical-align:top;padding:.5rem .6rem;border-bottom:1px solid var(--line)}
th{font-weight:600;color:var(--soft)}small{color:var(--soft);display:block}
.level{font-weight:600;white-space:nowrap}.revealed{color:var(--bad)}.part{color:var(--mid)}
.nothing{color:var(--good)}b.n{font-variant-numeric:tabular-nums}svg{display:block;margin:.2rem 0}
.attacks td:nth-child(1){width:42%}.attacks td:nth-child(3){width:11rem}
.verdict td:nth-child(2){width:24%}.verdict td:nth-child(4){width:32%}
.warning{border-left:3px solid var(--mid);padding:.2rem .8rem;background:var(--card)}
@media(max-width:48rem){table,tbody,tr,td{display:block;width:auto!important}
tr:first-child{display:none}
tr{background:var(--card);border:1px solid var(--line);border-radius:6px;margin:.8rem 0;padding:.4rem}
td{border:0;padding:.25rem .4rem}
td[data-label]:before{content:attr(data-label);display:block;color:var(--soft);font-size:.8rem}
.attacks td:first-child,.level{font-weight:600}.attacks small{font-weight:400}}
)";

std::string Escaped(absl::string_view text) {
  return absl::StrReplaceAll(text,
                             {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}});
}

std::string Listed(const std::vector<std::pair<std::string, double>>& numbers) {
  std::vector<std::string> parts;
  for (const auto& [name, value] : numbers) {
    parts.push_back(absl::StrCat(Escaped(name), " ", NumberText(value)));
  }
  return absl::StrJoin(parts, ", ");
}

// A bar from 0 to 1 with the interval as a line across its end, and a tick for the best baseline.
std::string Bar(const Finding& finding) {
  const auto x = [](double share) { return 160 * std::min(1.0, std::max(0.0, share)); };
  double baseline = 0;
  for (const auto& [name, value] : finding.baselines) {
    if (value <= 1) baseline = std::max(baseline, value);
  }
  return absl::StrFormat(
      "<svg width=\"162\" height=\"14\" role=\"img\" aria-label=\"%.3f\">"
      "<rect x=\"0\" y=\"3\" width=\"160\" height=\"8\" fill=\"var(--line)\"/>"
      "<rect x=\"0\" y=\"3\" width=\"%.1f\" height=\"8\" fill=\"var(--bar)\"/>"
      "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"7\" y2=\"7\" stroke=\"var(--ink)\" stroke-width=\"2\"/>"
      "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"0\" y2=\"14\" stroke=\"var(--bad)\"/></svg>",
      finding.estimate.value, x(finding.estimate.value), x(finding.estimate.low),
      x(finding.estimate.high), x(baseline), x(baseline));
}

std::string_view ClassOf(Verdict::Level level) {
  switch (level) {
    case Verdict::Level::kRevealed:
      return "revealed";
    case Verdict::Level::kPartly:
      return "part";
    case Verdict::Level::kNothingFound:
      return "nothing";
  }
  return "";
}

}  // namespace

std::string ToHtml(const Report& report) {
  std::string page = absl::StrCat(
      "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width,initial-scale=1\"><title>pcmoe audit</title><style>",
      kStyle, "</style><h1>What this run reveals</h1><p>Exchange <b>", Escaped(report.exchange),
      "</b>; attacker: <b>", Escaped(absl::StrJoin(report.coalition, " and ")),
      "</b>; attacked: ", Escaped(absl::StrJoin(report.victims, ", ")), ".</p><p><small>",
      Listed(report.facts),
      "</small></p><h2>Verdict</h2><table class=\"verdict\"><tr><th>level<th>what<th>to whom"
      "<th>certainty<th>what to change</tr>");
  for (const Verdict& verdict : report.verdicts) {
    absl::StrAppend(&page, "<tr><td class=\"level ", std::string(ClassOf(verdict.level)), "\">",
                    std::string(NameOf(verdict.level)), "<td>", Escaped(verdict.what),
                    "<td data-label=\"to whom\">", Escaped(verdict.to_whom),
                    "<td data-label=\"certainty\">", Escaped(verdict.certainty),
                    "<td data-label=\"what to change\">", Escaped(verdict.change), "</tr>");
  }
  absl::StrAppend(&page,
                  "</table><h2>Attacks</h2><p><small>Bar: the figure, with its 95 % interval as a "
                  "line; upright line: the best baseline, which sees nothing.</small></p>"
                  "<table class=\"attacks\"><tr><th>attack<th>metric<th>value<th>without the "
                  "observations</tr>");
  for (const Finding& finding : report.findings) {
    absl::StrAppendFormat(
        &page,
        "<tr><td>%s<small>%s</small><small>%s</small><td data-label=\"metric\">%s<td "
        "data-label=\"value\"><b class=\"n\">%.3f</b>%s<small>%.3f to %.3f</small><td "
        "data-label=\"without the observations\">%s</tr>",
        Escaped(finding.title), Listed(finding.more), Escaped(finding.note),
        Escaped(finding.metric), finding.estimate.value, Bar(finding), finding.estimate.low,
        finding.estimate.high, Listed(finding.baselines));
  }
  absl::StrAppend(&page, "</table>");
  for (const std::string& warning : report.warnings) {
    absl::StrAppend(&page, "<p class=\"warning\">Warning: ", Escaped(warning), "</p>");
  }
  return absl::StrCat(page, "</html>\n");
}

}  // namespace pcmoe::audit
