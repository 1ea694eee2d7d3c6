// pcmoe/audit/traffic_audit.h: findings on what a `weights` run shows of single parties: row
// counts under masks, and sizes of messages.
#pragma once

#include <vector>

#include "pcmoe/audit/audit.h"

namespace pcmoe::audit {

/// Counts only, routing only, sizes only. `tokens`: the victims' of all steps recorded; `shadow`:
/// public text through the public model.
absl::StatusOr<std::vector<Finding>> AttackTraffic(const AuditInput& input,
                                                   const PrivateTokens& tokens,
                                                   const Capture& shadow);

}  // namespace pcmoe::audit
