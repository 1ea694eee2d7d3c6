// pcmoe/audit/report.cc: see report.h: the table and JSON; the page is in report_html.cc.
#include "pcmoe/audit/report.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace pcmoe::audit {
namespace {

using Json = nlohmann::ordered_json;

Json Numbers(const std::vector<std::pair<std::string, double>>& numbers) {
  Json json = Json::object();
  for (const auto& [name, value] : numbers) json[name] = std::round(value * 1e6) / 1e6;
  return json;
}

std::string Listed(const std::vector<std::pair<std::string, double>>& numbers) {
  std::vector<std::string> parts;
  for (const auto& [name, value] : numbers) {
    parts.push_back(absl::StrCat(name, " ", NumberText(value)));
  }
  return absl::StrJoin(parts, ", ");
}

}  // namespace

std::string NumberText(double value) {
  if (value == std::round(value)) return absl::StrFormat("%.0f", value);
  if (std::abs(value) < 0.01) return absl::StrFormat("%.2g", value);
  return absl::StrFormat("%.3f", value);
}

std::string_view NameOf(Target target) {
  switch (target) {
    case Target::kTokens:
      return "tokens";
    case Target::kLabels:
      return "labels";
    case Target::kMembership:
      return "membership";
    case Target::kProperty:
      return "property";
    case Target::kMemory:
      return "memory";
    case Target::kTraffic:
      return "traffic";
    case Target::kControl:
      return "control";
  }
  return "unknown";
}

std::string_view NameOf(Verdict::Level level) {
  switch (level) {
    case Verdict::Level::kRevealed:
      return "revealed";
    case Verdict::Level::kPartly:
      return "in part";
    case Verdict::Level::kNothingFound:
      return "nothing found";
  }
  return "unknown";
}

const Finding* Report::Find(std::string_view id) const {
  const auto found = std::find_if(findings.begin(), findings.end(),
                                  [id](const Finding& finding) { return finding.id == id; });
  return found == findings.end() ? nullptr : &*found;
}

std::string ToText(const Report& report) {
  std::string text = absl::StrFormat(
      "Audit of a run with exchange \"%s\": what %s could learn about %s\n", report.exchange,
      absl::StrJoin(report.coalition, " and "), absl::StrJoin(report.victims, ", "));
  absl::StrAppend(&text, Listed(report.facts), "\n\n");
  int title = 6;
  int metric = 6;
  for (const Finding& finding : report.findings) {
    title = std::max(title, static_cast<int>(finding.title.size()));
    metric = std::max(metric, static_cast<int>(finding.metric.size()));
  }
  absl::StrAppendFormat(&text, "%-*s  %-*s %7s  %-15s %s\n", title, "attack", metric, "metric",
                        "value", "95 % interval", "without the observations");
  for (const Finding& finding : report.findings) {
    absl::StrAppendFormat(&text, "%-*s  %-*s %7.3f  %.3f to %.3f  %s\n", title, finding.title,
                          metric, finding.metric, finding.estimate.value, finding.estimate.low,
                          finding.estimate.high, Listed(finding.baselines));
    if (!finding.more.empty()) absl::StrAppend(&text, "    ", Listed(finding.more), "\n");
    if (!finding.note.empty()) absl::StrAppend(&text, "    ", finding.note, "\n");
  }
  absl::StrAppend(&text, "\nVerdict\n");
  for (const Verdict& verdict : report.verdicts) {
    absl::StrAppendFormat(&text, "* %s: %s\n    to whom: %s\n    certainty: %s\n    change: %s\n",
                          NameOf(verdict.level), verdict.what, verdict.to_whom, verdict.certainty,
                          verdict.change);
  }
  for (const std::string& warning : report.warnings) {
    absl::StrAppend(&text, "warning: ", warning, "\n");
  }
  return text;
}

std::string ToJson(const Report& report) {
  Json findings = Json::array();
  for (const Finding& finding : report.findings) {
    findings.push_back({{"id", finding.id},
                        {"title", finding.title},
                        {"target", NameOf(finding.target)},
                        {"metric", finding.metric},
                        {"value", finding.estimate.value},
                        {"low", finding.estimate.low},
                        {"high", finding.estimate.high},
                        {"baselines", Numbers(finding.baselines)},
                        {"more", Numbers(finding.more)},
                        {"note", finding.note},
                        {"seconds", std::round(finding.seconds * 10) / 10}});
  }
  Json verdicts = Json::array();
  for (const Verdict& verdict : report.verdicts) {
    verdicts.push_back({{"level", NameOf(verdict.level)},
                        {"what", verdict.what},
                        {"to_whom", verdict.to_whom},
                        {"certainty", verdict.certainty},
                        {"change", verdict.change}});
  }
  return Json{{"exchange", report.exchange}, {"coalition", report.coalition},
              {"victims", report.victims},   {"facts", Numbers(report.facts)},
              {"verdicts", verdicts},        {"findings", findings},
              {"warnings", report.warnings}, {"seconds", std::round(report.seconds * 10) / 10}}
      .dump();
}

}  // namespace pcmoe::audit
