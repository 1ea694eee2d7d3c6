// pcmoe/audit/report_html.cc: the report as one self-contained page.
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "pcmoe/audit/report.h"

namespace pcmoe::audit {
namespace {

constexpr char kStyle[] = R"(
:root{color-scheme:light dark;--ink:#1c2126;--soft:#5b6670;--line:#d9dee3;--page:#fff;--bar:#3b6ea5;
--bad:#b3261e;--mid:#9a6700;--good:#1a7f37}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ec;--soft:#9aa5af;--line:#333b42;--page:#14181b;
--bar:#6ea3d8;--bad:#ff8a80;--mid:#e0b050;--good:#6fcf87}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);max-width:70rem;
margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;width:100%;margin:1rem 0}
th,td{text-align:left;vertical-align:top;padding:.4rem .6rem;border-bottom:1px solid var(--line)}
th{font-weight:600;color:var(--soft)}td.n{text-align:right;font-variant-numeric:tabular-nums}
small{color:var(--soft)}.revealed{color:var(--bad);font-weight:600}.part{color:var(--mid);
font-weight:600}.nothing{color:var(--good);font-weight:600}svg{display:block}
)";

std::string Escaped(absl::string_view text) {
  return absl::StrReplaceAll(text,
                             {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}});
}

std::string Listed(const std::vector<std::pair<std::string, double>>& numbers) {
  std::vector<std::string> parts;
  for (const auto& [name, value] : numbers) {
    parts.push_back(absl::StrFormat("%s %.4g", Escaped(name), value));
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
      "content=\"width=device-width\"><title>pcmoe audit</title><style>",
      kStyle, "</style><h1>What this run reveals</h1><p>Exchange <b>", Escaped(report.exchange),
      "</b>; attacker: <b>", Escaped(absl::StrJoin(report.coalition, " and ")),
      "</b>; attacked: ", Escaped(absl::StrJoin(report.victims, ", ")), ".<br><small>",
      Listed(report.facts),
      "</small></p><h2>Verdict</h2><table><tr><th>level<th>what<th>to whom"
      "<th>certainty<th>what to change</tr>");
  for (const Verdict& verdict : report.verdicts) {
    absl::StrAppend(&page, "<tr><td class=\"", std::string(ClassOf(verdict.level)), "\">",
                    std::string(NameOf(verdict.level)), "<td>", Escaped(verdict.what), "<td>",
                    Escaped(verdict.to_whom), "<td>", Escaped(verdict.certainty), "<td>",
                    Escaped(verdict.change), "</tr>");
  }
  absl::StrAppend(&page,
                  "</table><h2>Attacks</h2><p><small>Bar: the figure, with its 95 % interval as a "
                  "line; upright line: the best baseline, which sees nothing.</small></p><table>"
                  "<tr><th>attack<th>metric<th>value<th><th>95 % interval<th>without the "
                  "observations</tr>");
  for (const Finding& finding : report.findings) {
    absl::StrAppendFormat(
        &page,
        "<tr><td>%s<br><small>%s%s%s</small><td>%s<td class=\"n\">%.3f<td>%s<td>%.3f to "
        "%.3f<td>%s</tr>",
        Escaped(finding.title), Listed(finding.more),
        finding.more.empty() || finding.note.empty() ? "" : "; ", Escaped(finding.note),
        Escaped(finding.metric), finding.estimate.value, Bar(finding), finding.estimate.low,
        finding.estimate.high, Listed(finding.baselines));
  }
  absl::StrAppend(&page, "</table>");
  for (const std::string& warning : report.warnings) {
    absl::StrAppend(&page, "<p>Warning: ", Escaped(warning), "</p>");
  }
  return absl::StrCat(page, "</html>\n");
}

}  // namespace pcmoe::audit
