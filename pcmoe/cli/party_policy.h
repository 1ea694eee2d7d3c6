// pcmoe/cli/party_policy.h: what may leave this party, and to whom, from its own config and policy
// file; never from a peer.
#pragma once

#include <string>
#include <vector>

#include "pcmoe/base/status.h"
#include "pcmoe/border/egress_gate.h"
#include "pcmoe/train/run_config.h"

namespace pcmoe::cli {

/// The policy of [border] allow_readable_rows, forbid ("PARTY:KIND", "*:KIND") and policy, a TOML
/// file with the tables [forbid] and, if only what is listed may leave, [allow]: a receiver's name
/// or "*" = a list of kinds (or "*", all kinds). `names` are the parties in the manifest's order.
/// INVALID_ARGUMENT names an unknown table, party or kind, and what is near to it.
absl::StatusOr<border::Policy> PolicyOf(const train::RunConfig& config,
                                        const std::vector<std::string>& names);

/// Adds to `policy` what the text of such a file forbids.
absl::Status AddPolicyText(const std::string& text, const std::vector<std::string>& names,
                           border::Policy& policy);

}  // namespace pcmoe::cli
