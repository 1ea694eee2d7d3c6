// pcmoe/provision/identity.h: a party's folder, read and checked before anything is started.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "pcmoe/base/status.h"
#include "pcmoe/federation/manifest.h"

namespace pcmoe::provision {

/// Files of a party's folder.
inline constexpr char kCaFile[] = "ca.crt";
inline constexpr char kCertificateFile[] = "party.crt";
inline constexpr char kKeyFile[] = "party.key";
inline constexpr char kManifestFile[] = "manifest.json";
inline constexpr char kSignatureFile[] = "manifest.sig";
inline constexpr char kPublicKeyFile[] = "federation.pub";
inline constexpr char kShuffleKeyFile[] = "shuffle.key";

/// Who this process is. `key_pem` and `shuffle_key` are secret: never log or send them.
struct Identity {
  federation::Manifest manifest;
  size_t index = 0;  ///< This party's place in the manifest.
  std::string name;
  std::string ca_pem;
  std::string certificate_pem;
  std::string key_pem;
  std::array<uint8_t, 32> shuffle_key{};
  absl::Time expires;  ///< End of the certificate; warn when it is near.
};

/// Reads `folder` and checks: all files are there, secrets are readable by their owner alone, the
/// key belongs to the certificate, the certificate is signed by ca.crt and valid at `now`, the
/// manifest is signed by federation.pub, and the certificate names a party of it. The first thing
/// wrong is one sentence with the file and what to type.
absl::StatusOr<Identity> LoadIdentity(const std::filesystem::path& folder,
                                      absl::Time now = absl::Now());

}  // namespace pcmoe::provision
