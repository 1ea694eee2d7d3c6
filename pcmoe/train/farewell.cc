// pcmoe/train/farewell.cc: see farewell.h.
#include "pcmoe/train/farewell.h"

#include <algorithm>

namespace pcmoe::train {

Farewell::Farewell(exchange::Session& session)
    : session_(session), said_(static_cast<size_t>(session.parties()), false) {
  session.Serve(wire::MessageKind::kBye, [this](int from, wire::Message message) {
    if (message.header.layer == 1) said_.assign(said_.size(), true);
    said_[static_cast<size_t>(from)] = true;
    return absl::OkStatus();
  });
}

absl::Status Farewell::Say(int64_t step, uint32_t attempt) {
  if (session_.parties() == 1) return absl::OkStatus();
  said_.assign(said_.size(), false);
  said_[static_cast<size_t>(session_.self())] = true;
  absl::Status status = session_.EnterStep(static_cast<uint64_t>(step), attempt);
  // A party that cannot be reached may have left: what it said before that is still to be heard.
  for (int peer = 0; peer < session_.parties(); ++peer) {
    if (peer == session_.self()) continue;
    const absl::Status ignored = session_.Send(peer, wire::MessageKind::kBye, 0, 0, {});
  }
  const auto owing = [this] {
    return std::find(said_.begin(), said_.end(), false) - said_.begin();
  };
  if (status.ok()) {
    status = session_.ServeUntil([&] { return owing() == session_.parties(); },
                                 [&] { return static_cast<int>(owing()); });
  }
  // A connection may close right behind the message that allows it: what was heard counts.
  if (owing() != session_.parties()) return status;
  for (int peer = 0; peer < session_.parties(); ++peer) {
    if (peer == session_.self() || !session_.IsUp(peer)) continue;
    const absl::Status ignored = session_.Send(peer, wire::MessageKind::kBye, 1, 0, {});
  }
  return absl::OkStatus();
}

}  // namespace pcmoe::train
