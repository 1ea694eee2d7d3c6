// pcmoe/border/mask_keys.h: the keys that parties agree on masks with, and how they are signed.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "pcmoe/base/status.h"
#include "pcmoe/wire/frame.h"
#include "pcmoe/wire/message.h"

namespace pcmoe::border {

/// An X25519 public key (RFC 7748).
using MaskPublicKey = std::array<uint8_t, 32>;

/// One party's fresh X25519 key for one attempt, that is one meeting of the federation. Never
/// written down: after a restart the parties meet again with new keys, so no mask ever comes back.
/// Movable; the secret is wiped at the end and after a move.
class MaskKeyPair {
 public:
  /// From the operating system's CSPRNG.
  static MaskKeyPair Generate();
  /// For tests that must repeat themselves; a run uses Generate alone.
  static MaskKeyPair FromSecret(const std::array<uint8_t, 32>& secret);
  ~MaskKeyPair();
  MaskKeyPair(MaskKeyPair&& other) noexcept;
  MaskKeyPair& operator=(MaskKeyPair&& other) noexcept;

  const MaskPublicKey& public_key() const { return public_key_; }

  /// X25519 of this secret and `theirs`: 32 bytes known to both parties alone. INVALID_ARGUMENT
  /// when they are all zero, which only a key made to break the agreement gives (RFC 7748, 6.1).
  absl::StatusOr<std::array<uint8_t, 32>> Agree(const MaskPublicKey& theirs) const;

 private:
  MaskKeyPair() = default;
  std::array<uint8_t, 32> secret_{};
  MaskPublicKey public_key_{};
};

/// What a mask key belongs to. Part of what is signed, and of every key that is derived.
struct MaskContext {
  wire::RunId run{};
  uint64_t step = 0;  ///< The step that the meeting goes on from.
  uint32_t attempt = 0;
};

/// HKDF-SHA256 (RFC 5869), for at most 8160 bytes of `out`. INTERNAL when OpenSSL fails.
absl::Status Hkdf(std::span<const uint8_t> secret, std::span<const uint8_t> salt,
                  std::span<const uint8_t> info, std::span<uint8_t> out);

/// The message by which party `party` tells its mask key: the public key, the party's certificate
/// and a signature over both, the context and the index, by the certificate's key (EC or Ed25519;
/// PEM). Its length depends on the certificate alone. INVALID_ARGUMENT when certificate or key
/// cannot be used or do not belong together.
absl::StatusOr<wire::Buffer> SignMaskKey(const MaskKeyPair& key, const MaskContext& context,
                                         wire::PartyIndex party, const std::string& certificate_pem,
                                         const std::string& key_pem);

/// The public key in `share`, which came from party `party`: its certificate is valid at `now`,
/// signed by the authority `ca_pem` and names `identity_name` (Manifest::IdentityOf), and its key
/// signed just this share for just this run, step, attempt and party. Takes any bytes; a share
/// with one bit changed is refused. INVALID_ARGUMENT, in constant sentences.
absl::StatusOr<MaskPublicKey> VerifyMaskKey(std::span<const uint8_t> share,
                                            const MaskContext& context, wire::PartyIndex party,
                                            const std::string& identity_name,
                                            const std::string& ca_pem,
                                            absl::Time now = absl::Now());

}  // namespace pcmoe::border
