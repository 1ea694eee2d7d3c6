// pcmoe/audit/known_plaintext.h: attack A9 on a `rows` run: who knows some of the text needs no
// public model.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "pcmoe/audit/audit.h"

namespace pcmoe::audit {

/// For 1,000, 5,000 and 20,000 known tokens, at the first layer and at the middle one. Takes as
/// many of `steps` as give that many rows, beginning with `view`'s own number of steps; a sentence
/// in `warnings` where the run has too few.
absl::StatusOr<std::vector<Finding>> AttackWithKnownPlaintext(
    const AuditInput& input, const View& view, const std::vector<int64_t>& steps,
    const std::vector<std::pair<std::string, double>>& baselines,
    std::vector<std::string>& warnings);

}  // namespace pcmoe::audit
