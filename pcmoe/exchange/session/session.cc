// pcmoe/exchange/session/session.cc: see session.h.
#include "pcmoe/exchange/session/session.h"

#include <algorithm>
#include <cstring>
#include <tuple>

#include "absl/strings/cord.h"
#include "pcmoe/base/log.h"

namespace pcmoe::exchange {
namespace {

constexpr char kFailurePayload[] = "pcmoe/failure";
// How long a queue may stay full, or a wait go on before signals and deadlines are looked at again.
constexpr absl::Duration kTick = absl::Milliseconds(200);
// A stopped peer takes nothing from its queue; those behind it must hear the abort all the same.
constexpr absl::Duration kAbortWait = absl::Seconds(2);
// Early messages: a peer is at most one step ahead, so more than this is not a peer but an attack.
constexpr size_t kMaxEarly = 65536;
// In a header's layer: the message belongs to what follows the step, its evaluation or export.
constexpr uint16_t kPhaseBits = 0xC000;

uint16_t BitsOf(Session::Phase phase) {
  switch (phase) {
    case Session::Phase::kTraining:
      return 0;
    case Session::Phase::kEvaluation:
      return 0x8000;
    case Session::Phase::kExport:
      return 0xC000;
  }
  return 0;
}

Session::Phase PhaseOf(uint16_t layer) {
  if ((layer & 0x8000) == 0) return Session::Phase::kTraining;
  return (layer & 0x4000) == 0 ? Session::Phase::kEvaluation : Session::Phase::kExport;
}

}  // namespace

std::string_view SentenceFor(AbortReason reason) {
  switch (reason) {
    case AbortReason::kPeerLost:
      return "is lost";
    case AbortReason::kTimeout:
      return "sent nothing within the time of peer_timeout_s";
    case AbortReason::kBadMessage:
      return "sent a message that is not allowed";
    case AbortReason::kNotFinite:
      return "has a loss or gradient that is not finite";
    case AbortReason::kLocalError:
      return "stopped by an error of its own";
    case AbortReason::kRestarted:
      return "was started again";
  }
  return "failed";
}

std::optional<Failure> FailureIn(const absl::Status& status) {
  const auto payload = status.GetPayload(kFailurePayload);
  if (!payload) return std::nullopt;
  const std::string bytes(*payload);
  Failure failure;
  if (bytes.size() != sizeof(failure)) return std::nullopt;
  std::memcpy(&failure, bytes.data(), sizeof(failure));
  return failure;
}

Session::Session(transport::Channel* channel, border::EgressGate* gate, Options options)
    : channel_(channel),
      gate_(gate),
      options_(std::move(options)),
      hello_(options_.names.size()),
      up_(options_.names.size(), false),
      last_heard_(options_.names.size(), absl::InfinitePast()),
      waits_(options_.names.size(), 0) {}

absl::Status Session::FailureStatus(const Failure& failure, absl::string_view detail) const {
  const std::string sentence =
      absl::StrCat("party ", NameOf(failure.culprit), " ", std::string(SentenceFor(failure.reason)),
                   detail.empty() ? "" : ": ", detail);
  absl::Status status;
  switch (failure.reason) {
    case AbortReason::kPeerLost:
    case AbortReason::kRestarted:
      status = absl::UnavailableError(sentence);
      break;
    case AbortReason::kTimeout:
      status = absl::DeadlineExceededError(sentence);
      break;
    default:
      status = absl::AbortedError(sentence);
  }
  const absl::string_view bytes(reinterpret_cast<const char*>(&failure), sizeof(failure));
  status.SetPayload(kFailurePayload, absl::Cord(bytes));
  return status;
}

void Session::Serve(wire::MessageKind kind, Handler handler) {
  handlers_[kind] = std::move(handler);
}

Session::Place Session::PlaceOf(wire::PartyIndex from, const wire::MessageHeader& header) const {
  return {header.step,
          PhaseOf(header.layer),
          static_cast<uint8_t>(header.kind),
          from,
          static_cast<uint16_t>((header.layer & 0x8000) == 0 ? header.layer
                                                             : header.layer & ~kPhaseBits),
          header.micro_batch};
}

void Session::LeaveStep(uint32_t attempt) {
  in_step_ = false;
  attempt_ = attempt;
  arrived_.clear();
  seen_.clear();
}

absl::Status Session::EnterStep(uint64_t step, uint32_t attempt, Phase phase) {
  step_ = step;
  phase_ = phase;
  attempt_ = attempt;
  in_step_ = true;
  abort_told_ = false;
  arrived_.clear();
  seen_.clear();
  std::vector<std::pair<wire::PartyIndex, wire::Message>> early = std::move(early_);
  early_.clear();
  for (auto& [from, message] : early)
    PCMOE_RETURN_IF_ERROR(HandleMessage(from, std::move(message)));
  return absl::OkStatus();
}

absl::Status Session::Send(wire::PartyIndex to, wire::MessageKind kind, uint16_t layer,
                           uint16_t micro_batch, wire::Buffer payload) {
  return SendBy(absl::Now() + options_.peer_timeout, to, kind, layer, micro_batch,
                std::move(payload));
}

absl::Status Session::SendBy(absl::Time deadline, wire::PartyIndex to, wire::MessageKind kind,
                             uint16_t layer, uint16_t micro_batch, wire::Buffer payload) {
  const wire::MessageHeader header{kind, step_, attempt_,
                                   static_cast<uint16_t>(layer | BitsOf(phase_)), micro_batch};
  PCMOE_ASSIGN_OR_RETURN(wire::Sealed sealed, gate_->Release(to, header, std::move(payload)));
  const absl::Status sent = channel_->Send(std::move(sealed), deadline);
  if (sent.ok()) return sent;
  if (sent.code() == absl::StatusCode::kDeadlineExceeded) {
    return FailureStatus({to, AbortReason::kTimeout}, "its queue stayed full");
  }
  if (in_step_ && !abort_told_ && kind != wire::MessageKind::kBye) {
    PCMOE_RETURN_IF_ERROR(WhyItLeft(to));
  }
  return FailureStatus({to, AbortReason::kPeerLost}, sent.message());
}

// A party that leaves because of another says so first; that is read before it is called lost. The
// attempt is void, so its other messages are let go.
absl::Status Session::WhyItLeft(wire::PartyIndex peer) {
  const absl::Time deadline = absl::Now() + absl::Seconds(1);
  while (up_[static_cast<size_t>(peer)]) {
    auto event = channel_->Next(deadline);
    if (!event) break;
    const bool of_no_use = event->kind == transport::Event::Kind::kMessage &&
                           event->message.header.attempt == attempt_ &&
                           event->message.header.kind != wire::MessageKind::kAbort;
    if (!of_no_use) PCMOE_RETURN_IF_ERROR(Handle(*std::move(event)));
  }
  return absl::OkStatus();
}

absl::Status Session::Broadcast(wire::MessageKind kind, wire::Buffer payload) {
  for (wire::PartyIndex to = 0; to < parties(); ++to) {
    if (to != self()) PCMOE_RETURN_IF_ERROR(Send(to, kind, 0, 0, payload));
  }
  return absl::OkStatus();
}

absl::Status Session::Deliver(const Place& place, wire::Message message) {
  const wire::PartyIndex from = place.from;
  const auto handler = handlers_.find(message.header.kind);
  if (handler == handlers_.end()) {
    arrived_.insert_or_assign(place, std::move(message.payload));
    return absl::OkStatus();
  }
  const absl::Status handled = handler->second(from, std::move(message));
  if (handled.ok() || FailureIn(handled)) return handled;
  if (handled.code() != absl::StatusCode::kInvalidArgument) return handled;
  return FailureStatus({from, AbortReason::kBadMessage}, handled.message());
}

absl::Status Session::HandleAbort(wire::PartyIndex from, const wire::Message& message) {
  const auto bytes = message.payload.bytes();
  if (bytes.size() != 2 || bytes[0] >= parties() || bytes[1] < 1 || bytes[1] > 6) {
    return FailureStatus({from, AbortReason::kBadMessage});
  }
  return FailureStatus({bytes[0], static_cast<AbortReason>(bytes[1])},
                       bytes[0] == from ? "" : absl::StrCat("as party ", NameOf(from), " says"));
}

absl::Status Session::HandleMessage(wire::PartyIndex from, wire::Message message) {
  const wire::MessageHeader& header = message.header;
  if (header.kind == wire::MessageKind::kHello) {
    // A greeting said twice changes nothing; one for a later attempt ends this one.
    if (in_step_ && header.attempt <= attempt_) return absl::OkStatus();
    hello_[static_cast<size_t>(from)].emplace(header, std::move(message.payload));
    return in_step_ ? FailureStatus({from, AbortReason::kRestarted}) : absl::OkStatus();
  }
  // Of whichever step: its sender leaves the attempt, perhaps from a step that is over here.
  if (header.kind == wire::MessageKind::kAbort && header.attempt == attempt_) {
    return in_step_ ? HandleAbort(from, message) : absl::OkStatus();
  }
  const Place place = PlaceOf(from, header);
  const auto now = std::tie(step_, phase_);
  if (header.attempt < attempt_ ||
      (in_step_ && header.attempt == attempt_ && std::tie(place.step, place.phase) < now)) {
    return absl::OkStatus();  // late: it belongs to something that is over
  }
  if (!in_step_ || header.attempt > attempt_ || std::tie(place.step, place.phase) > now) {
    if (early_.size() >= kMaxEarly) return FailureStatus({from, AbortReason::kBadMessage});
    early_.emplace_back(from, std::move(message));
    return absl::OkStatus();
  }
  if (!seen_.insert(place).second) return absl::OkStatus();  // duplicate
  message.header.layer = place.layer;
  return Deliver(place, std::move(message));
}

absl::Status Session::Handle(transport::Event event) {
  const auto peer = static_cast<size_t>(event.peer);
  last_heard_[peer] = absl::Now();
  switch (event.kind) {
    case transport::Event::Kind::kPeerUp:
      up_[peer] = true;
      hello_[peer].reset();
      return in_step_ ? FailureStatus({event.peer, AbortReason::kRestarted}) : absl::OkStatus();
    case transport::Event::Kind::kPeerDown:
      up_[peer] = false;
      hello_[peer].reset();
      std::erase_if(early_, [&](const auto& early) { return early.first == event.peer; });
      if (!in_step_) return absl::OkStatus();
      return FailureStatus({event.peer, AbortReason::kPeerLost}, event.why.message());
    case transport::Event::Kind::kMessage:
      return HandleMessage(event.peer, std::move(event.message));
  }
  return absl::OkStatus();
}

absl::Status Session::Pump(absl::Time deadline) {
  if (interrupted_ && interrupted_()) return absl::CancelledError("interrupted by a signal");
  auto event = channel_->Next(std::min(deadline, absl::Now() + kTick));
  return event ? Handle(*std::move(event)) : absl::OkStatus();
}

absl::StatusOr<wire::Buffer> Session::Await(wire::MessageKind kind, wire::PartyIndex from,
                                            uint16_t layer, uint16_t micro_batch) {
  const Place place{step_, phase_, static_cast<uint8_t>(kind), from, layer, micro_batch};
  PCMOE_RETURN_IF_ERROR(ServeUntil([&] { return arrived_.contains(place); }, [&] { return from; }));
  return std::move(arrived_.extract(place).mapped());
}

absl::Status Session::ServeUntil(const std::function<bool()>& done,
                                 const std::function<wire::PartyIndex()>& waiting_for) {
  const absl::Time begin = absl::Now();
  absl::Time now = begin;
  while (!done()) {
    const wire::PartyIndex owing = waiting_for();
    const absl::Time silent_since = std::max(begin, last_heard_[static_cast<size_t>(owing)]);
    if (now > silent_since + options_.peer_timeout) {
      return FailureStatus({owing, AbortReason::kTimeout});
    }
    PCMOE_RETURN_IF_ERROR(Pump(silent_since + options_.peer_timeout));
    const absl::Time later = absl::Now();
    waits_[static_cast<size_t>(owing)] += absl::ToDoubleSeconds(later - now);
    now = later;
  }
  return absl::OkStatus();
}

absl::Status Session::Poll() {
  if (channel_ == nullptr) return absl::OkStatus();
  while (auto event = channel_->Next(absl::InfinitePast())) {
    PCMOE_RETURN_IF_ERROR(Handle(*std::move(event)));
  }
  return absl::OkStatus();
}

std::optional<std::pair<wire::MessageHeader, wire::Buffer>> Session::TakeHello(
    wire::PartyIndex from) {
  return std::exchange(hello_[static_cast<size_t>(from)], std::nullopt);
}

void Session::WaitForAnything(absl::Time deadline, std::vector<wire::PartyIndex>& came_up) {
  in_step_ = false;
  auto event = channel_->Next(std::min(deadline, absl::Now() + kTick));
  while (event) {
    if (event->kind == transport::Event::Kind::kPeerUp) came_up.push_back(event->peer);
    const absl::Status ignored = Handle(*std::move(event));
    event = channel_->Next(absl::InfinitePast());
  }
}

void Session::TellAbort(const Failure& failure) {
  if (channel_ == nullptr || abort_told_) return;
  abort_told_ = true;
  const absl::Time deadline = absl::Now() + kAbortWait;
  wire::Buffer payload = wire::Buffer::Allocate(2);
  payload.writable()[0] = static_cast<uint8_t>(failure.culprit);
  payload.writable()[1] = static_cast<uint8_t>(failure.reason);
  for (wire::PartyIndex to = 0; to < parties(); ++to) {
    if (to == self() || !up_[static_cast<size_t>(to)]) continue;
    const absl::Status ignored = SendBy(deadline, to, wire::MessageKind::kAbort, 0, 0, payload);
  }
}

void Session::Close() {
  if (channel_ != nullptr) channel_->Close(absl::Now() + absl::Seconds(5));
}

uint64_t Session::sent_bytes() const {
  uint64_t bytes = 0;
  for (wire::PartyIndex peer = 0; channel_ != nullptr && peer < parties(); ++peer) {
    if (peer != self()) bytes += channel_->TrafficWith(peer).sent_bytes;
  }
  return bytes;
}

std::vector<double> Session::TakeWaits() {
  return std::exchange(waits_, std::vector<double>(options_.names.size(), 0));
}

}  // namespace pcmoe::exchange
