// pcmoe/exchange/weights/mask_agreement.h: fresh masks for an attempt: every party tells a signed
// key, and checks everybody else's.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "pcmoe/border/mask_keys.h"
#include "pcmoe/border/pairwise_masks.h"
#include "pcmoe/exchange/session/session.h"

namespace pcmoe::exchange {

/// How a party's mask key is signed, and others' are checked; the identity stays with the caller.
struct MaskKeySigner {
  std::function<absl::StatusOr<wire::Buffer>(const border::MaskKeyPair&,
                                             const border::MaskContext&)>
      sign;
  std::function<absl::StatusOr<border::MaskPublicKey>(
      std::span<const uint8_t> share, const border::MaskContext&, wire::PartyIndex party)>
      verify;
};

/// Keeps the masks of the current attempt. Not thread-safe.
class MaskAgreement {
 public:
  /// `session` outlives this.
  MaskAgreement(Session& session, MaskKeySigner signer, const wire::RunId& run, bool allow_pairwise)
      : session_(session), signer_(std::move(signer)), run_(run), allow_pairwise_(allow_pairwise) {}

  /// Agrees on masks with everybody, unless this attempt has them already. Within a step. A failure
  /// naming the party whose key is not what it should be.
  absl::Status Agree();
  /// After Agree.
  border::PairwiseMasks& masks() {
    return *masks_;  // NOLINT(bugprone-unchecked-optional-access): Agree has made them
  }
  /// The attempt is over: its masks are never used again.
  void Forget() { masks_.reset(); }

 private:
  Session& session_;
  const MaskKeySigner signer_;
  const wire::RunId run_;
  const bool allow_pairwise_;
  std::optional<border::PairwiseMasks> masks_;
  uint32_t attempt_ = 0;
};

}  // namespace pcmoe::exchange
