// pcmoe/audit/sums_membership.h: who was in a released sum: by alignment of gradients, step by
// step and for sums of several sizes, and by row matching.
#pragma once

#include <string>
#include <vector>

#include "pcmoe/audit/audit.h"

namespace pcmoe::audit {

/// Released sums of some steps, [step][member of the coalition]; the first step is the one whose
/// AUC is the finding's, the others are among its further figures.
using SumsOfSteps = std::vector<std::vector<ReleasedSum>>;

/// `tokens`: the victims' of all steps recorded; sequences of other steps are who was not in a sum.
/// `share`: of the usual number of candidates. Nothing but a sentence in `warnings` when the
/// victims kept too little.
absl::StatusOr<std::vector<Finding>> AttackSumsMembership(const AuditInput& input,
                                                          const SumsOfSteps& sums,
                                                          const PrivateTokens& tokens, double share,
                                                          std::vector<std::string>& warnings);

}  // namespace pcmoe::audit
