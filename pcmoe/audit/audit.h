// pcmoe/audit/audit.h: runs the attacks on a recorded run and writes what they got.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "pcmoe/audit/base_model.h"
#include "pcmoe/audit/final_model.h"
#include "pcmoe/audit/private_tokens.h"
#include "pcmoe/audit/report.h"
#include "pcmoe/audit/sums_view.h"
#include "pcmoe/audit/view.h"

namespace pcmoe::audit {

/// What an audit works with; all outlive it.
struct AuditInput {
  std::vector<std::string> names;  ///< Of the parties, in the manifest's order.
  std::vector<Member> coalition;
  const Truths& truths;                     ///< For scoring and choosing candidates only.
  BaseModel& base;                          ///< The attacker's copy of the public checkpoint.
  std::span<const data::Sequence> shadow;   ///< Public text, packed as the victims pack theirs.
  std::map<int, UnitLayout> layouts = {};   ///< Of the members' units; for exchange "weights".
  std::optional<FinalModel> released = {};  ///< Attacked when there is one.
  double minutes = 10;                      ///< Sizes of samples and trainings are cut to fit.
  uint64_t seed = 1;
  /// A line for people after every attack.
  std::function<void(const std::string&)> progress = [](const std::string&) {};
};

/// All attacks on a run with exchange "rows". FAILED_PRECONDITION when nothing was recorded or no
/// victim kept its tokens.
absl::StatusOr<Report> AuditRows(const AuditInput& input);

/// All attacks on a run with exchange "weights": on the first step recorded, where the public base
/// is an exact copy of everybody's model. Errors as AuditRows.
absl::StatusOr<Report> AuditWeights(const AuditInput& input);

/// The verdicts that follow from a report's findings, worst first.
std::vector<Verdict> VerdictsOf(const Report& report);

}  // namespace pcmoe::audit
