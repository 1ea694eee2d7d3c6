// pcmoe/transport/loopback.cc: see loopback.h.
#include "pcmoe/transport/loopback.h"

#include <tuple>
#include <utility>

#include "pcmoe/transport/wait.h"

namespace pcmoe::transport {
namespace {

using wire::PartyIndex;

absl::Status Lost(PartyIndex peer, absl::string_view why) {
  return absl::UnavailableError(absl::StrCat("party ", peer, ": ", why));
}

}  // namespace

// One party's end of the mesh.
class LoopbackChannel : public Channel {
 public:
  LoopbackChannel(std::shared_ptr<LoopbackMesh> mesh, PartyIndex self)
      : mesh_(std::move(mesh)), self_(self) {}
  ~LoopbackChannel() override { mesh_->Shut(self_, /*keep_messages=*/false); }
  int parties() const override { return mesh_->parties_; }
  PartyIndex self() const override { return self_; }

  absl::Status Send(wire::Sealed message, absl::Time deadline) override {
    return mesh_->Send(self_, std::move(message), deadline);
  }
  std::optional<Event> Next(absl::Time deadline) override { return mesh_->Next(self_, deadline); }

  void Drop(PartyIndex peer, const absl::Status& why) override {
    const std::lock_guard lock(mesh_->mutex_);
    if (!IsPeer(peer) || !mesh_->At(self_, peer).connected) return;
    mesh_->Disconnect(self_, peer, why, Lost(self_, "it dropped the connection"), false);
  }

  absl::Status PeerStatus(PartyIndex peer) const override {
    const std::lock_guard lock(mesh_->mutex_);
    if (!IsPeer(peer)) return absl::InvalidArgumentError("no such peer");
    const auto& link = mesh_->At(self_, peer);
    return link.connected ? absl::OkStatus() : link.why_down;
  }

  Traffic TrafficWith(PartyIndex peer) const override {
    const std::lock_guard lock(mesh_->mutex_);
    if (!IsPeer(peer)) return {};
    Traffic traffic = mesh_->At(self_, peer).traffic;
    const Traffic& other = mesh_->At(peer, self_).traffic;
    traffic.received_bytes = other.received_bytes;
    traffic.received_messages = other.received_messages;
    return traffic;
  }

  void Close(absl::Time) override { mesh_->Shut(self_, /*keep_messages=*/true); }

 private:
  bool IsPeer(PartyIndex peer) const {
    return peer >= 0 && peer < mesh_->parties_ && peer != self_;
  }
  const std::shared_ptr<LoopbackMesh> mesh_;
  const PartyIndex self_;
};

std::shared_ptr<LoopbackMesh> LoopbackMesh::Create(int parties, const LoopbackOptions& options) {
  return std::shared_ptr<LoopbackMesh>(new LoopbackMesh(parties, options));
}

LoopbackMesh::LoopbackMesh(int parties, const LoopbackOptions& options)
    : parties_(parties),
      options_(options),
      links_(static_cast<size_t>(parties * parties)),
      open_(static_cast<size_t>(parties)) {
  for (Link& link : links_) link.delay = options.delay;
}

LoopbackMesh::Link& LoopbackMesh::At(PartyIndex from, PartyIndex to) {
  return links_[static_cast<size_t>(from * parties_ + to)];
}

std::unique_ptr<Channel> LoopbackMesh::Open(PartyIndex party) {
  const std::lock_guard lock(mutex_);
  open_[static_cast<size_t>(party)] = true;
  for (PartyIndex peer = 0; peer < parties_; ++peer) {
    if (peer == party) continue;
    At(peer, party).arrivals.clear();  // meant for the party that was here before
    At(peer, party).queued_bytes = 0;
    if (open_[static_cast<size_t>(peer)] && !At(party, peer).cut) {
      Connect(party, peer, absl::ZeroDuration());
    }
  }
  return std::make_unique<LoopbackChannel>(shared_from_this(), party);
}

void LoopbackMesh::SetDelay(PartyIndex from, PartyIndex to, absl::Duration delay) {
  const std::lock_guard lock(mutex_);
  At(from, to).delay = delay;
}

void LoopbackMesh::SetHang(PartyIndex from, PartyIndex to, bool hang) {
  const std::lock_guard lock(mutex_);
  At(from, to).hang = hang;
  changed_.notify_all();
}

void LoopbackMesh::Cut(PartyIndex a, PartyIndex b) {
  const std::lock_guard lock(mutex_);
  At(a, b).cut = At(b, a).cut = true;
  if (!At(a, b).connected) return;
  Disconnect(a, b, Lost(b, "the connection was lost"), Lost(a, "the connection was lost"), false);
}

void LoopbackMesh::Restore(PartyIndex a, PartyIndex b) {
  const std::lock_guard lock(mutex_);
  At(a, b).cut = At(b, a).cut = false;
  const bool both = open_[static_cast<size_t>(a)] && open_[static_cast<size_t>(b)];
  if (both && !At(a, b).connected) Connect(a, b, options_.redial);
}

void LoopbackMesh::DamageNextFrame(PartyIndex from, PartyIndex to) {
  const std::lock_guard lock(mutex_);
  At(from, to).damage_next = true;
}

void LoopbackMesh::Push(Link& link, absl::Time time, uint64_t framed_bytes, Event event) {
  if (!link.arrivals.empty()) time = std::max(time, link.arrivals.back().time);
  link.queued_bytes += framed_bytes;
  link.arrivals.push_back({time, next_number_++, framed_bytes, std::move(event)});
  changed_.notify_all();
}

void LoopbackMesh::Connect(PartyIndex a, PartyIndex b, absl::Duration after) {
  const absl::Time up_at = absl::Now() + after;
  for (const auto& [from, to] : {std::pair(a, b), std::pair(b, a)}) {
    Link& link = At(from, to);
    link.connected = true;
    link.up_at = up_at;
    link.assembler =
        std::make_unique<wire::FrameAssembler>(options_.run, options_.max_message_bytes);
    Push(link, up_at, 0, {Event::Kind::kPeerUp, from, {}, absl::OkStatus()});
  }
}

void LoopbackMesh::Disconnect(PartyIndex a, PartyIndex b, const absl::Status& why_a,
                              const absl::Status& why_b, bool keep_messages) {
  for (const auto& [from, to, why] : {std::tuple(a, b, why_b), std::tuple(b, a, why_a)}) {
    Link& link = At(from, to);
    link.connected = false;
    // `why` is what the receiving end is told about `from`; the other direction describes `to`.
    At(to, from).why_down = why;
    if (!keep_messages) {
      std::erase_if(link.arrivals, [](const Arrival& arrival) {
        return arrival.event.kind == Event::Kind::kMessage;
      });
      link.queued_bytes = 0;
    }
    Push(link, absl::Now(), 0, {Event::Kind::kPeerDown, from, {}, why});
  }
  const bool both = open_[static_cast<size_t>(a)] && open_[static_cast<size_t>(b)];
  if (both && !At(a, b).cut) Connect(a, b, options_.redial);
}

void LoopbackMesh::Shut(PartyIndex party, bool keep_messages) {
  const std::lock_guard lock(mutex_);
  if (!open_[static_cast<size_t>(party)]) return;
  open_[static_cast<size_t>(party)] = false;
  for (PartyIndex peer = 0; peer < parties_; ++peer) {
    if (peer == party || !At(party, peer).connected) continue;
    Disconnect(party, peer, absl::CancelledError("the channel was closed here"),
               Lost(party, keep_messages ? "it closed the connection" : "the connection was lost"),
               keep_messages);
  }
  changed_.notify_all();
}

absl::StatusOr<wire::Message> LoopbackMesh::Transmit(Link& link, const wire::Sealed& message) {
  wire::FrameEncoder encoder(options_.run, message.header(), message.payload().bytes());
  while (auto frame = encoder.Next()) {
    if (std::exchange(link.damage_next, false)) frame->header[24] ^= 1;
    const std::span<const uint8_t> pieces[] = {frame->header, frame->chunk};
    PCMOE_ASSIGN_OR_RETURN(auto whole, link.assembler->Take(pieces, nullptr));
    if (whole.has_value()) return *std::move(whole);
  }
  return absl::InternalError("the encoder ended before the message");
}

absl::Status LoopbackMesh::Send(PartyIndex from, wire::Sealed message, absl::Time deadline) {
  const PartyIndex to = message.to();
  if (to < 0 || to >= parties_ || to == from) {
    return absl::InternalError(absl::StrCat("party ", to, " is no peer"));
  }
  const uint64_t bytes = wire::FramedBytes(message.payload().size());
  std::unique_lock lock(mutex_);
  Link& link = At(from, to);
  const auto is_up = [&] { return link.connected && absl::Now() >= link.up_at; };
  while (is_up() && link.queued_bytes > 0 && link.queued_bytes + bytes > options_.queue_bytes) {
    if (!WaitUntil(changed_, lock, deadline)) {
      return absl::DeadlineExceededError(
          absl::StrCat("party ", to, " does not take what is sent to it; is it overloaded?"));
    }
  }
  if (!is_up())
    return Lost(to, link.connected ? "it is not connected yet" : link.why_down.message());
  link.traffic.sent_bytes += bytes;
  ++link.traffic.sent_messages;
  auto received = Transmit(link, message);
  if (!received.ok()) {
    Disconnect(from, to, Lost(to, "it dropped the connection"),
               WithContext(received.status(), absl::StrCat("party ", from)), false);
    return absl::OkStatus();
  }
  Push(link, absl::Now() + link.delay, bytes,
       {Event::Kind::kMessage, from, *std::move(received), absl::OkStatus()});
  return absl::OkStatus();
}

LoopbackMesh::Link* LoopbackMesh::EarliestTo(PartyIndex self, PartyIndex& from) {
  Link* earliest = nullptr;
  for (PartyIndex peer = 0; peer < parties_; ++peer) {
    Link& link = At(peer, self);
    if (peer == self || link.arrivals.empty()) continue;
    if (link.hang && link.arrivals.front().event.kind == Event::Kind::kMessage) continue;
    const auto key = [](const Link& l) {
      return std::pair(l.arrivals.front().time, l.arrivals.front().number);
    };
    if (earliest != nullptr && key(*earliest) < key(link)) continue;
    earliest = &link;
    from = peer;
  }
  return earliest;
}

std::optional<Event> LoopbackMesh::Next(PartyIndex self, absl::Time deadline) {
  std::unique_lock lock(mutex_);
  while (true) {
    if (!open_[static_cast<size_t>(self)]) return std::nullopt;
    PartyIndex from = 0;
    Link* link = EarliestTo(self, from);
    const absl::Time time = link == nullptr ? absl::InfiniteFuture() : link->arrivals.front().time;
    if (time <= absl::Now()) {
      Arrival arrival = std::move(link->arrivals.front());
      link->arrivals.pop_front();
      link->queued_bytes -= arrival.framed_bytes;
      link->traffic.received_bytes += arrival.framed_bytes;
      link->traffic.received_messages += arrival.event.kind == Event::Kind::kMessage ? 1 : 0;
      changed_.notify_all();
      return std::move(arrival.event);
    }
    if (!WaitUntil(changed_, lock, std::min(time, deadline)) && absl::Now() >= deadline) {
      return std::nullopt;
    }
  }
}

std::vector<std::unique_ptr<Channel>> MakeLoopback(int n, const LoopbackOptions& options) {
  const auto mesh = LoopbackMesh::Create(n, options);
  std::vector<std::unique_ptr<Channel>> channels;
  for (PartyIndex party = 0; party < n; ++party) channels.push_back(mesh->Open(party));
  return channels;
}

}  // namespace pcmoe::transport
