// pcmoe/audit/verdict.cc: from figures to sentences. Careful words: an attack that got nothing
// shows that this attack got nothing.
#include <algorithm>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "pcmoe/audit/audit.h"

namespace pcmoe::audit {
namespace {

double BestBaseline(const Finding& finding) {
  double best = 0;
  for (const auto& [name, value] : finding.baselines) {
    if (name != "base model given the true text before") best = std::max(best, value);
  }
  return best;
}

// The finding of a target that is furthest above what one gets without it; null when none ran.
// Of tokens and labels, the one that gets most.
const Finding* Strongest(const Report& report, Target target) {
  const bool by_value = target == Target::kTokens || target == Target::kLabels;
  const auto strength = [by_value](const Finding& finding) {
    return finding.estimate.value - (by_value ? 0 : BestBaseline(finding));
  };
  const Finding* best = nullptr;
  for (const Finding& finding : report.findings) {
    if (finding.target != target) continue;
    if (best == nullptr || strength(finding) > strength(*best)) best = &finding;
  }
  return best;
}

Verdict::Level LevelOf(const Finding& finding) {
  const double excess = finding.estimate.low - BestBaseline(finding);
  if (excess <= 0.005) return Verdict::Level::kNothingFound;
  const double room = 1 - BestBaseline(finding);
  return excess > 0.5 * room ? Verdict::Level::kRevealed : Verdict::Level::kPartly;
}

std::string Certainty(const Finding& finding) {
  std::string certainty =
      absl::StrFormat("%s: %s %.3f (95 %% interval %.3f to %.3f; without the observations %.3f)",
                      finding.title, finding.metric, finding.estimate.value, finding.estimate.low,
                      finding.estimate.high, BestBaseline(finding));
  for (const auto& [name, value] : finding.more) {
    if (name.starts_with("AUC at ")) absl::StrAppendFormat(&certainty, "; %s %.3f", name, value);
  }
  return certainty;
}

// What a finding of this target means, when there is something and when there is not.
std::string WhatOf(const Finding& finding, bool found) {
  switch (finding.target) {
    case Target::kTokens:
      return found ? "the text of the other parties can be read back"
                   : "no attack of this audit read text back";
    case Target::kLabels:
      return found ? "the tokens to be predicted (answers, labels) can be read back"
                   : "no attack of this audit read labels back";
    case Target::kMembership:
      if (finding.id == "row_matching") {
        return found ? "rows of released sums resemble the rows of documents in them"
                     : "row matching on released sums is not clearly above chance";
      }
      return found ? "whoever holds a candidate document can tell whether it was used"
                   : "no attack of this audit told members from others";
    case Target::kMemory:
      if (finding.metric == "AUC") {
        return found ? "the final model tells which documents it was trained on"
                     : "the final model did not tell members from others";
      }
      return found
                 ? "the final model continues text that it was trained on word for word"
                 : "no text was extracted from the final model that the public base does not know";
    case Target::kTraffic:
      return found ? "messages of single parties tell about their text"
                   : "counts, routing and sizes of single parties told nothing about their text";
    default:
      return found ? absl::StrCat("about the data: ", finding.title)
                   : "no attack of this audit told more about the data than public text does";
  }
}

// What to change, when something was found.
std::string ChangeOf(const Finding& finding, bool rows) {
  switch (finding.target) {
    case Target::kMemory:
      return "fewer epochs and less repeated text lower it; only differential privacy bounds it";
    case Target::kTraffic:
      return "report this as a bug if it stays in other runs: masks and lengths should tell "
             "nothing";
    case Target::kMembership:
      if (!rows) return "more tokens a step lower it; only differential privacy bounds it";
      break;
    default:
      if (!rows) return "set embedding and head to \"frozen\" or \"private\"; more tokens a step";
  }
  return "use exchange \"weights\": no rows, gradients of rows or expert ids leave then";
}

Verdict VerdictOn(const Report& report, const Finding& finding) {
  Verdict verdict{.level = LevelOf(finding),
                  .to_whom = finding.target == Target::kMemory
                                 ? "whoever has the final model"
                                 : absl::StrJoin(report.coalition, " and "),
                  .certainty = Certainty(finding)};
  const bool found = verdict.level != Verdict::Level::kNothingFound;
  verdict.what = WhatOf(finding, found);
  verdict.change = found ? ChangeOf(finding, report.exchange == "rows")
                         : "nothing because of this; a stronger attack may exist";
  return verdict;
}

}  // namespace

std::vector<Verdict> VerdictsOf(const Report& report) {
  std::vector<Verdict> verdicts;
  const Finding* control = report.Find("row_control");
  if (control != nullptr &&
      std::abs(control->estimate.value - control->baselines[0].second) > 0.01) {
    verdicts.push_back(
        {.level = Verdict::Level::kPartly,
         .what = "the control is not at the unigram's level: do not trust the token attacks here",
         .to_whom = "the reader of this report",
         .certainty = Certainty(*control),
         .change = "more public text; report this as a bug if it stays"});
  }
  // Of sums, what they do give away comes first, whatever its level.
  const bool weights = report.exchange == "weights";
  const auto add = [&](Target target) {
    if (const Finding* finding = Strongest(report, target)) {
      verdicts.push_back(VerdictOn(report, *finding));
    }
  };
  const auto add_by_id = [&](const char* id) {
    if (const Finding* finding = report.Find(id)) verdicts.push_back(VerdictOn(report, *finding));
  };
  if (weights) {
    add(Target::kMembership);
    add(Target::kProperty);
    add_by_id("final_membership");
    add_by_id("final_extraction");
    for (const Target target : {Target::kTokens, Target::kLabels, Target::kTraffic}) add(target);
    add_by_id("row_matching");
    return verdicts;
  }
  for (const Target target :
       {Target::kTokens, Target::kLabels, Target::kMembership, Target::kProperty}) {
    add(target);
  }
  add_by_id("final_membership");
  add_by_id("final_extraction");
  std::stable_sort(verdicts.begin(), verdicts.end(),
                   [](const Verdict& a, const Verdict& b) { return a.level < b.level; });
  return verdicts;
}

}  // namespace pcmoe::audit
