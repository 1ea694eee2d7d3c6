// pcmoe/audit/report.h: what the attacks got, as a table, as JSON, and as one HTML page.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "pcmoe/audit/metrics.h"
#include "pcmoe/base/status.h"

namespace pcmoe::audit {

/// What an attack goes for.
enum class Target {
  kTokens,      ///< Private tokens; the estimate is a share of them, 0 to 1.
  kLabels,      ///< The tokens that are to be predicted.
  kMembership,  ///< Whether a document was trained on; the estimate is an AUC.
  kProperty,    ///< Something about the data: domain, sizes, which words occur.
  kMemory,      ///< What the trained model remembers, whoever holds it.
  kTraffic,     ///< What single parties' messages of a `weights` run tell; the estimate is an AUC.
  kControl,     ///< No attack: a check that the harness itself leaks nothing.
};
/// "tokens", "labels", "membership", "property", "memory", "traffic", "control".
std::string_view NameOf(Target target);

/// One line of a report. Plain data.
struct Finding {
  std::string id;     ///< Stable, for JSON and --fail-above: "row_decoder_all".
  std::string title;  ///< For people.
  Target target = Target::kTokens;
  std::string metric;  ///< "top-1 of rows seen", "AUC".
  Estimate estimate;
  /// What one gets without the observations: "unigram", "majority", "uniform", "permuted rows".
  std::vector<std::pair<std::string, double>> baselines;
  std::vector<std::pair<std::string, double>> more;  ///< Per layer, TPR@1%FPR, and the like.
  std::string note;
  double seconds = 0;
};

/// A line of the verdict: what, to whom, how certain, what to change.
struct Verdict {
  enum class Level { kRevealed, kPartly, kNothingFound };
  Level level = Level::kNothingFound;
  std::string what, to_whom, certainty, change;
};
/// "revealed", "in part", "nothing found".
std::string_view NameOf(Verdict::Level level);

/// All of an audit. Plain data.
struct Report {
  std::string exchange;                ///< "rows" or "weights".
  std::vector<std::string> coalition;  ///< Names.
  std::vector<std::string> victims;
  std::vector<std::pair<std::string, double>> facts;  ///< Steps, tokens, rows seen and so on.
  std::vector<Finding> findings;
  std::vector<Verdict> verdicts;
  std::vector<std::string> warnings;
  double seconds = 0;

  /// The finding of that id; null when the attack did not run.
  const Finding* Find(std::string_view id) const;
};

/// Whole numbers as they are, others with three digits after the point or two that count.
std::string NumberText(double value);

std::string ToText(const Report& report);
std::string ToJson(const Report& report);
/// One self-contained page: no script, no request to anywhere; light and dark.
std::string ToHtml(const Report& report);

}  // namespace pcmoe::audit
