// pcmoe/federation/manifest.h: what all parties of a run agree on, and the digest they compare.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "pcmoe/base/digest.h"
#include "pcmoe/base/status.h"

namespace pcmoe::federation {

inline constexpr uint64_t kManifestFormat = 1;
/// A larger manifest file is not read.
inline constexpr uint64_t kMaxManifestBytes = uint64_t{16} << 20;
inline constexpr size_t kMaxParties = 256;
inline constexpr size_t kMaxLayers = 4096;
inline constexpr size_t kMaxExperts = 65536;

/// One party and where it listens.
struct PartyEntry {
  std::string name;  ///< A DNS label: lower-case letters, digits, '-'; at most 63; unique.
  std::string host;  ///< Host name or IP address that the other parties dial.
  uint16_t port = 0;
  bool operator==(const PartyEntry&) const = default;
};

enum class Exchange { kRows, kWeights };
enum class Schedule { kSynchronous, kRoundRobin };
std::string_view NameOf(Exchange exchange);
std::string_view NameOf(Schedule schedule);

/// Who owns the experts. Empty: round-robin. Else one row a layer, or one row for all layers; an
/// entry is the index of the party that owns the expert of that column, so every expert has exactly
/// one owner whatever is written.
using Owners = std::vector<std::vector<uint32_t>>;

/// What one peer may make another hold or compute.
struct Limits {
  uint64_t max_message_bytes = uint64_t{1} << 30;  ///< Payload of one message; 4 KiB to 16 GiB.
  uint64_t max_rows = uint64_t{1} << 20;           ///< Rows of tokens in one message.
  std::string min_tls = "1.2";  ///< Only "1.2"; 1.3 is used where both sides have it.
  bool operator==(const Limits&) const = default;
};

/// The signed agreement. Plain data: set fields by name, then Validate.
struct Manifest {
  std::string id;    ///< A DNS label; part of every party's identity.
  std::string name;  ///< For people; at most 200 bytes.
  std::vector<PartyEntry> parties;
  base::Sha256 model_config_sha256{};  ///< Of the bytes of config.json.
  /// Digest of the checkpoint all start from; without one, weights come from `init_seed`.
  std::optional<base::Sha256> checkpoint_sha256;
  uint64_t init_seed = 0;
  uint64_t schedule_seed = 0;
  Owners owners;
  Exchange exchange = Exchange::kWeights;
  Schedule schedule = Schedule::kSynchronous;
  uint64_t max_steps = 0;
  Limits limits;
  /// Settings of the training that must be equal everywhere: learning_rate, seq_length, ...
  std::map<std::string, std::string> training;

  bool operator==(const Manifest&) const = default;

  /// INVALID_ARGUMENT with the first rule broken, as a sentence.
  absl::Status Validate() const;
  /// The one way to write this manifest: sorted keys, two spaces, a newline at the end.
  std::string CanonicalJson() const;
  /// SHA-256 of CanonicalJson(): the same for all parties, however their files are laid out.
  base::Sha256 Digest() const;
  /// "<name>.<id>.pcmoe", the name in the party's certificate; `party` is an index.
  std::string IdentityOf(size_t party) const;
  /// Index of the party called `name`; NOT_FOUND with the names there are.
  absl::StatusOr<size_t> IndexOf(std::string_view party_name) const;
};

/// Reads a manifest strictly: an unknown, missing or repeated key, a value of the wrong type or out
/// of bounds is INVALID_ARGUMENT with the key's path (and the key that was probably meant). The
/// result has passed Validate. Safe on hostile bytes.
absl::StatusOr<Manifest> ParseManifest(std::string_view json);

/// True for 1 to 63 lower-case letters, digits and '-', not at either end.
bool IsDnsLabel(std::string_view text);

}  // namespace pcmoe::federation
