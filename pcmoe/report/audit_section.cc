// pcmoe/report/audit_section.cc: what `pcmoe audit --json > FOLDER/audit.json` found.
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "pcmoe/report/parts.h"

namespace pcmoe::report {
namespace {

Tone ToneOf(const std::string& level) {
  if (level == "revealed") return Tone::kBad;
  if (level == "in part") return Tone::kMiddle;
  return level == "nothing found" ? Tone::kGood : Tone::kPlain;
}

std::vector<Json> ObjectsAt(const Json& json, const char* key) {
  std::vector<Json> objects;
  const Json& list = At(json, key);
  if (!list.is_array()) return objects;
  for (const Json& one : list) {
    if (one.is_object()) objects.push_back(one);
  }
  return objects;
}

double BestBaseline(const Json& finding) {
  double best = std::nan("");
  const Json& baselines = At(finding, "baselines");
  if (!baselines.is_object()) return best;
  for (const auto& [name, value] : baselines.items()) {
    if (!value.is_number() || name == "base model given the true text before") continue;
    const auto number = value.get<double>();
    best = std::isnan(best) ? number : std::max(best, number);
  }
  return best;
}

}  // namespace

std::optional<Section> AuditSection(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "audit.json";
  if (!std::filesystem::exists(path)) return std::nullopt;
  Section section{.title = "Audit"};
  const absl::StatusOr<Json> audit = ReadObject(path);
  if (!audit.ok()) {
    section.blocks.emplace_back(Text{std::string(audit.status().message()), Tone::kBad});
    return section;
  }
  section.blocks.emplace_back(Text{absl::StrFormat(
      "Exchange %s; attacker: %s; attacked: %s. An attack that got nothing shows that this attack "
      "got nothing.",
      TextAt(*audit, "exchange", "?"), absl::StrJoin(TextsAt(*audit, "coalition"), " and "),
      absl::StrJoin(TextsAt(*audit, "victims"), ", "))});
  Table verdicts{.header = {"level", "what", "to whom", "certainty", "what to change"},
                 .numbers = false};
  for (const Json& verdict : ObjectsAt(*audit, "verdicts")) {
    const std::string level = TextAt(verdict, "level");
    verdicts.rows.push_back({{level, "", ToneOf(level)},
                             {TextAt(verdict, "what")},
                             {TextAt(verdict, "to_whom")},
                             {TextAt(verdict, "certainty")},
                             {TextAt(verdict, "change")}});
  }
  section.blocks.emplace_back(std::move(verdicts));
  Table findings{.header = {"attack", "metric", "value", "95 % interval", "best baseline"}};
  for (const Json& finding : ObjectsAt(*audit, "findings")) {
    findings.rows.push_back({{TextAt(finding, "title")},
                             {TextAt(finding, "metric")},
                             {NumberText("%.3f", NumberAt(finding, "value"))},
                             {absl::StrCat(NumberText("%.3f", NumberAt(finding, "low")), " to ",
                                           NumberText("%.3f", NumberAt(finding, "high")))},
                             {NumberText("%.3f", BestBaseline(finding))}});
  }
  section.blocks.emplace_back(Folded{"Figures of the attacks", {std::move(findings)}});
  for (const std::string& warning : TextsAt(*audit, "warnings")) {
    section.blocks.emplace_back(Text{absl::StrCat("Warning: ", warning), Tone::kMiddle});
  }
  return section;
}

}  // namespace pcmoe::report
