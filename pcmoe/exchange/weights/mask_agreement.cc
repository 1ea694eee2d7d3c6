// pcmoe/exchange/weights/mask_agreement.cc: see mask_agreement.h.
#include "pcmoe/exchange/weights/mask_agreement.h"

#include <algorithm>

namespace pcmoe::exchange {

absl::Status MaskAgreement::Agree() {
  if (masks_ && attempt_ == session_.attempt()) return absl::OkStatus();
  masks_.reset();
  const auto own = border::MaskKeyPair::Generate();
  const border::MaskContext context{
      .run = run_, .step = session_.step(), .attempt = session_.attempt()};
  PCMOE_ASSIGN_OR_RETURN(wire::Buffer share, signer_.sign(own, context));
  PCMOE_RETURN_IF_ERROR(session_.Broadcast(wire::MessageKind::kMaskKey, std::move(share)));
  std::vector<border::MaskPublicKey> keys(static_cast<size_t>(session_.parties()));
  keys[static_cast<size_t>(session_.self())] = own.public_key();
  for (int peer = 0; peer < session_.parties(); ++peer) {
    if (peer == session_.self()) continue;
    PCMOE_ASSIGN_OR_RETURN(const wire::Buffer payload,
                           session_.Await(wire::MessageKind::kMaskKey, peer, 0, 0));
    const auto key = signer_.verify(payload.bytes(), context, peer);
    if (!key.ok()) {
      return session_.FailureStatus({peer, AbortReason::kBadMessage}, key.status().message());
    }
    // Of its own signing all the same: a key that agrees on nothing, or somebody else's.
    const absl::Status agreed = own.Agree(*key).status();
    if (!agreed.ok()) {
      return session_.FailureStatus({peer, AbortReason::kBadMessage}, agreed.message());
    }
    const auto same = std::ranges::find(keys, *key);
    if (same != keys.end()) {
      return session_.FailureStatus(
          {peer, AbortReason::kBadMessage},
          absl::StrCat("its mask key is that of party ",
                       session_.NameOf(static_cast<wire::PartyIndex>(same - keys.begin())),
                       ", so one of the two copied the other's"));
    }
    keys[static_cast<size_t>(peer)] = *key;
  }
  PCMOE_ASSIGN_OR_RETURN(auto masks,
                         border::PairwiseMasks::Create(session_.self(), own, keys, context));
  if (allow_pairwise_) masks.AllowNoPeers();
  masks_.emplace(std::move(masks));
  attempt_ = session_.attempt();
  return absl::OkStatus();
}

}  // namespace pcmoe::exchange
