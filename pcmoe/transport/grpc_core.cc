// pcmoe/transport/grpc_core.cc: what the connections share; see grpc_session.h.
#include "pcmoe/base/log.h"
#include "pcmoe/transport/grpc_session.h"
#include "pcmoe/transport/wait.h"

namespace pcmoe::transport {

using wire::PartyIndex;

Core::Core(const GrpcChannelOptions& options) : options_(options), peers_(options.parties.size()) {}

bool Core::IsPeer(PartyIndex peer) const {
  return peer >= 0 && peer < static_cast<int>(options_.parties.size()) && peer != options_.self;
}

const std::string& Core::NameOf(PartyIndex peer) const {
  return options_.parties[static_cast<size_t>(peer)].name;
}

absl::Status Core::Send(wire::Sealed message, absl::Time deadline) {
  const PartyIndex to = message.to();
  if (!IsPeer(to)) return absl::InternalError(absl::StrCat("party ", to, " is no peer"));
  const uint64_t bytes = wire::FramedBytes(message.payload().size());
  std::shared_ptr<Session> session;
  {
    std::unique_lock lock(mutex_);
    Peer& peer = At(to);
    session = peer.session;
    while (peer.session == session && session != nullptr && session->queued_bytes_ > 0 &&
           session->queued_bytes_ + bytes > options_.queue_bytes) {
      if (!WaitUntil(changed_, lock, deadline)) {
        return absl::DeadlineExceededError(
            absl::StrCat(NameOf(to), ": it does not take what is sent to it; is it overloaded?"));
      }
    }
    if (peer.session == nullptr || peer.session != session) {
      return absl::UnavailableError(peer.session == nullptr
                                        ? peer.why_down.message()
                                        : absl::StrCat(NameOf(to), ": the connection was lost"));
    }
    session->queued_bytes_ += bytes;
    session->outgoing_.push_back(std::move(message));
    if (session->write_active_) return absl::OkStatus();
    session->write_active_ = true;
  }
  session->WriteNext();
  return absl::OkStatus();
}

std::optional<Event> Core::Next(absl::Time deadline) {
  std::optional<Event> event;
  std::shared_ptr<Session> resumed;
  {
    std::unique_lock lock(mutex_);
    while (inbox_.empty() && !stopped_) {
      if (!WaitUntil(changed_, lock, deadline)) break;
    }
    if (inbox_.empty()) return std::nullopt;
    event = std::move(inbox_.front().event);
    Peer& peer = At(event->peer);
    peer.inbox_bytes -= inbox_.front().framed_bytes;
    inbox_.pop_front();
    if (peer.session != nullptr && peer.session->read_paused_ &&
        peer.inbox_bytes <= options_.inbox_bytes) {
      peer.session->read_paused_ = false;
      resumed = peer.session;
    }
  }
  if (resumed != nullptr) resumed->ReadMore();
  return event;
}

absl::Status Core::PeerStatus(PartyIndex peer) const {
  const std::lock_guard lock(mutex_);
  if (!IsPeer(peer)) return absl::InvalidArgumentError("no such peer");
  const Peer& entry = peers_[static_cast<size_t>(peer)];
  return entry.session != nullptr ? absl::OkStatus() : entry.why_down;
}

Traffic Core::TrafficWith(PartyIndex peer) const {
  const std::lock_guard lock(mutex_);
  return IsPeer(peer) ? peers_[static_cast<size_t>(peer)].traffic : Traffic{};
}

std::shared_ptr<Session> Core::SessionOf(PartyIndex peer) const {
  const std::lock_guard lock(mutex_);
  return IsPeer(peer) ? peers_[static_cast<size_t>(peer)].session : nullptr;
}

bool Core::Attach(const std::shared_ptr<Session>& session) {
  std::shared_ptr<Session> before;
  {
    const std::lock_guard lock(mutex_);
    if (stopped_) return false;
    Peer& peer = At(session->peer());
    before = peer.session;
    if (before != nullptr) {
      DetachLocked(
          peer, session->peer(),
          absl::UnavailableError(absl::StrCat(NameOf(session->peer()), ": it has connected anew")));
    }
    peer.session = session;
    inbox_.push_back({{Event::Kind::kPeerUp, session->peer(), {}, absl::OkStatus()}, 0});
    changed_.notify_all();
  }
  if (before != nullptr) before->EndStream(Stream::Ending::kReset);
  return true;
}

void Core::DetachLocked(Peer& peer, PartyIndex index, const absl::Status& why) {
  peer.session = nullptr;
  peer.why_down = why;
  inbox_.push_back({{Event::Kind::kPeerDown, index, {}, why}, 0});
  changed_.notify_all();
}

void Core::Detach(const Session* session, const absl::Status& why) {
  const std::lock_guard lock(mutex_);
  Peer& peer = At(session->peer());
  if (peer.session.get() == session) DetachLocked(peer, session->peer(), why);
}

void Core::NoteFailure(PartyIndex peer, const absl::Status& why) {
  const std::lock_guard lock(mutex_);
  Peer& entry = At(peer);
  if (entry.session != nullptr || entry.why_down == why) return;
  entry.why_down = why;
  if (absl::IsUnauthenticated(why)) base::LogWarning(std::string(why.message()));
}

void Core::Flush(absl::Time deadline) {
  std::unique_lock lock(mutex_);
  const auto is_busy = [this] {
    for (const Peer& peer : peers_) {
      if (peer.session != nullptr && peer.session->write_active_) return true;
    }
    return false;
  };
  while (is_busy() && WaitUntil(changed_, lock, deadline)) {
  }
}

void Core::Stop() {
  const std::lock_guard lock(mutex_);
  stopped_ = true;
  changed_.notify_all();
}

void Core::StreamStarted(Stream* stream) {
  const std::lock_guard lock(mutex_);
  streams_.insert(stream);
}

void Core::StreamDone(Stream* stream) {
  const std::lock_guard lock(mutex_);
  streams_.erase(stream);
  changed_.notify_all();
}

void Core::WaitForStreams(absl::Time deadline) {
  std::unique_lock lock(mutex_);
  while (!streams_.empty() && WaitUntil(changed_, lock, deadline)) {
  }
  for (Stream* stream : streams_) stream->Cancel();
  while (!streams_.empty()) WaitUntil(changed_, lock, absl::InfiniteFuture());
}

}  // namespace pcmoe::transport
