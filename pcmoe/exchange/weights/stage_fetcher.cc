// pcmoe/exchange/weights/stage_fetcher.cc: see stage_fetcher.h.
#include "pcmoe/exchange/weights/stage_fetcher.h"

#include <algorithm>
#include <utility>

#include "pcmoe/tensor/finite.h"

namespace pcmoe::exchange {
namespace {

// The payload, counted for as long as somebody has it.
wire::Buffer Counted(wire::Buffer payload, const std::shared_ptr<ByteMeter>& meter) {
  return wire::Buffer(Metered(meter, static_cast<int64_t>(payload.size()),
                              payload.writable().data(), payload.owner()),
                      payload.writable());
}

}  // namespace

void StageFetcher::Begin(std::vector<Visit> visits, uint64_t version) {
  visits_ = std::move(visits);
  version_ = version;
  at_ = 0;
  pushed_ = 0;
}

absl::Status StageFetcher::Push(const Visit& visit) {
  const int self = session_.self();
  if (units_.Of(visit.stage, self).empty()) return absl::OkStatus();
  StageTensors own = own_(visit.stage);
  const wire::Buffer payload = units_.EncodeWeights(visit.stage, self, version_, own);
  for (int peer = 0; peer < session_.parties(); ++peer) {
    if (peer == self) continue;
    PCMOE_RETURN_IF_ERROR(session_.Send(peer, wire::MessageKind::kUnitWeights,
                                        static_cast<uint16_t>(visit.stage),
                                        static_cast<uint16_t>(visit.number), payload));
  }
  return absl::OkStatus();
}

// What came from them would not be finite either, and its fetcher would be blamed for it.
bool StageFetcher::AllFinite(const Visit& visit, int owner, StageTensors& tensors) const {
  return std::ranges::all_of(units_.Of(visit.stage, owner).tensors, [&](const UnitTensor& unit) {
    return tensor::AllFinite(units_.TensorOf(tensors, visit.stage, unit));
  });
}

absl::StatusOr<StageTensors> StageFetcher::Next(int stage) {
  if (at_ >= visits_.size() || visits_[at_].stage != stage) {
    return absl::InternalError("the stages of a pass came in another order than was agreed");
  }
  const Visit visit = visits_[at_++];
  for (; pushed_ < visits_.size() && pushed_ <= at_; ++pushed_) {
    PCMOE_RETURN_IF_ERROR(Push(visits_[pushed_]));
  }
  StageTensors tensors = own_(stage);
  for (int owner = 0; owner < session_.parties(); ++owner) {
    if (owner == session_.self() || units_.Of(stage, owner).empty()) continue;
    PCMOE_ASSIGN_OR_RETURN(
        wire::Buffer payload,
        session_.Await(wire::MessageKind::kUnitWeights, owner, static_cast<uint16_t>(stage),
                       static_cast<uint16_t>(visit.number)));
    payload = Counted(std::move(payload), meter_);
    if (!units_.ViewWeights(stage, owner, version_, payload, tensors)) {
      return session_.FailureStatus({owner, AbortReason::kBadMessage},
                                    "weights of another length or version");
    }
    if (!AllFinite(visit, owner, tensors)) {
      return session_.FailureStatus({owner, AbortReason::kNotFinite}, "in its weights");
    }
  }
  return tensors;
}

absl::Status StageFetcher::Drain() {
  while (at_ < visits_.size()) {
    PCMOE_RETURN_IF_ERROR(Next(visits_[at_].stage).status());
  }
  return absl::OkStatus();
}

}  // namespace pcmoe::exchange
