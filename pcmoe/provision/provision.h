// pcmoe/provision/provision.h: makes the folders that parties need to start.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "pcmoe/base/status.h"
#include "pcmoe/federation/manifest.h"

namespace pcmoe::provision {

struct ProvisionOptions {
  std::filesystem::path out;
  bool force = false;  ///< New authority, keys and certificates even where good ones are there.
  absl::Duration party_validity = absl::Hours(24 * 365);
  absl::Duration authority_validity = absl::Hours(24 * 3650);
  absl::Time now = absl::Now();
};

/// What was done, for people.
struct ProvisionReport {
  federation::Manifest manifest;  ///< As signed: with its id.
  bool new_authority = false;
  std::vector<std::string> issued;  ///< Parties that got a new key and certificate.
  std::vector<std::string> kept;    ///< Parties whose certificate was still good.
};

/// Writes OUT/ca/ (authority and signing key; keep it offline) and one folder OUT/<party>/ for each
/// party, to be carried there safely: folders 0700, secrets 0600. An empty `manifest.id` becomes
/// the one used before in OUT, or a new random one. Run again, it keeps the authority, every good
/// certificate (right names, valid for 30 more days) and every shuffle.key, and signs the manifest
/// anew. INVALID_ARGUMENT when the manifest breaks its rules.
absl::StatusOr<ProvisionReport> Provision(const ProvisionOptions& options,
                                          federation::Manifest manifest);

}  // namespace pcmoe::provision
