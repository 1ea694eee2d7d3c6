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

// The strongest of the findings of a target; null when none ran.
const Finding* Strongest(const Report& report, Target target) {
  const Finding* best = nullptr;
  for (const Finding& finding : report.findings) {
    if (finding.target != target) continue;
    if (best == nullptr || finding.estimate.value > best->estimate.value) best = &finding;
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
  return absl::StrFormat("%s: %s %.3f (95 %% interval %.3f to %.3f; without the observations %.3f)",
                         finding.title, finding.metric, finding.estimate.value,
                         finding.estimate.low, finding.estimate.high, BestBaseline(finding));
}

Verdict VerdictOn(const Report& report, const Finding& finding) {
  Verdict verdict{.level = LevelOf(finding),
                  .to_whom = absl::StrJoin(report.coalition, " and "),
                  .certainty = Certainty(finding)};
  const bool rows = report.exchange == "rows";
  const bool found = verdict.level != Verdict::Level::kNothingFound;
  switch (finding.target) {
    case Target::kTokens:
      verdict.what = found ? "the text of the other parties can be read back"
                           : "no attack of this audit read text back";
      break;
    case Target::kLabels:
      verdict.what = found ? "the tokens to be predicted (answers, labels) can be read back"
                           : "no attack of this audit read labels back";
      break;
    case Target::kMembership:
      verdict.what = found ? "whoever holds a candidate document can tell whether it was used"
                           : "no attack of this audit told members from others";
      break;
    default:
      verdict.what = found
                         ? absl::StrCat("about the data: ", finding.title)
                         : "no attack of this audit told more about the data than public text does";
  }
  if (!found) {
    verdict.change = "nothing because of this; a stronger attack may exist";
  } else if (rows) {
    verdict.change =
        "use exchange \"weights\": no rows, gradients of rows or expert ids leave then";
  } else if (finding.target == Target::kMembership) {
    verdict.change = "more tokens a step lower it; only differential privacy bounds it";
  } else {
    verdict.change = "set embedding and head to \"frozen\" or \"private\"; more tokens a step";
  }
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
  const std::vector<Target> order =
      report.exchange == "weights"
          ? std::vector{Target::kMembership, Target::kProperty, Target::kTokens, Target::kLabels}
          : std::vector{Target::kTokens, Target::kLabels, Target::kMembership, Target::kProperty};
  for (const Target target : order) {
    const Finding* finding = Strongest(report, target);
    if (finding != nullptr) verdicts.push_back(VerdictOn(report, *finding));
  }
  if (report.exchange == "weights") return verdicts;
  std::stable_sort(verdicts.begin(), verdicts.end(),
                   [](const Verdict& a, const Verdict& b) { return a.level < b.level; });
  return verdicts;
}

}  // namespace pcmoe::audit
