// pcmoe/exchange/session/session.h: one party's conversation: sends through the border, waits for
// what it asked, and serves what others ask while it waits. One compute thread drives everything,
// so results cannot depend on which message came first.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "pcmoe/base/status.h"
#include "pcmoe/border/egress_gate.h"
#include "pcmoe/transport/channel.h"

namespace pcmoe::exchange {

/// Why an attempt at a step is void; the byte of kAbort. Constant sentences only.
enum class AbortReason : uint8_t {
  kPeerLost = 1,    ///< The connection to the culprit broke, or it showed no sign of life.
  kTimeout = 2,     ///< The culprit sent nothing for peer_timeout_s.
  kBadMessage = 3,  ///< The culprit sent something that is not allowed.
  kNotFinite = 4,   ///< The culprit's loss or gradients are not finite.
  kLocalError = 5,  ///< The culprit stopped by an error of its own (disk, data, signal).
  kRestarted = 6,   ///< The culprit came back and wants to meet again.
};
/// "sent a message that is not allowed" and the like.
std::string_view SentenceFor(AbortReason reason);

/// A party that made an attempt void. Travels in the Status of every method (see FailureIn).
struct Failure {
  wire::PartyIndex culprit = 0;
  AbortReason reason = AbortReason::kPeerLost;
};
/// The failure inside `status`, when it came from a peer.
std::optional<Failure> FailureIn(const absl::Status& status);

/// Not thread-safe: one thread calls everything.
class Session {
 public:
  struct Options {
    absl::Duration peer_timeout = absl::Seconds(60);  ///< Without anything from whom we wait for.
    std::vector<std::string> names;                   ///< Of the parties, for sentences.
  };
  /// `channel` may be null when there is one party only. Both outlive the session.
  Session(transport::Channel* channel, border::EgressGate* gate, Options options);

  int parties() const { return static_cast<int>(options_.names.size()); }
  wire::PartyIndex self() const { return channel_ == nullptr ? 0 : channel_->self(); }
  const std::string& NameOf(wire::PartyIndex party) const {
    return options_.names[static_cast<size_t>(party)];
  }

  /// Messages of `kind` are given to `handler` as soon as they come (when they belong to the
  /// current step), instead of waiting for an Await. An error of the handler is the sender's fault.
  using Handler = std::function<absl::Status(wire::PartyIndex from, wire::Message message)>;
  void Serve(wire::MessageKind kind, Handler handler);

  /// From now on messages carry, and must carry, this step and attempt. Later ones that came early
  /// are served or kept for Await now; earlier ones are forgotten. The phases of a step are
  /// training, then evaluation, then export.
  enum class Phase : uint8_t { kTraining = 0, kEvaluation = 1, kExport = 2 };
  absl::Status EnterStep(uint64_t step, uint32_t attempt, Phase phase = Phase::kTraining);
  uint64_t step() const { return step_; }
  uint32_t attempt() const { return attempt_; }

  absl::Status Send(wire::PartyIndex to, wire::MessageKind kind, uint16_t layer,
                    uint16_t micro_batch, wire::Buffer payload);
  /// To everyone else; the payload is shared.
  absl::Status Broadcast(wire::MessageKind kind, wire::Buffer payload);

  /// The payload of the one message of this kind, place and sender; serves meanwhile.
  absl::StatusOr<wire::Buffer> Await(wire::MessageKind kind, wire::PartyIndex from, uint16_t layer,
                                     uint16_t micro_batch);
  /// Serves until `done()`; `waiting_for()` names somebody who still owes something, for the
  /// deadline.
  absl::Status ServeUntil(const std::function<bool()>& done,
                          const std::function<wire::PartyIndex()>& waiting_for);
  /// Serves what has come already, without waiting.
  absl::Status Poll();

  /// Parties are to meet again: no step is current until the next EnterStep; hellos carry
  /// `attempt`.
  void LeaveStep(uint32_t attempt);
  /// Hello messages are outside steps: the newest of each peer, until it is taken or the peer is
  /// lost.
  std::optional<std::pair<wire::MessageHeader, wire::Buffer>> TakeHello(wire::PartyIndex from);
  bool IsUp(wire::PartyIndex peer) const { return up_[static_cast<size_t>(peer)]; }
  /// OK while connected, else why not (transport::Channel::PeerStatus).
  absl::Status PeerStatus(wire::PartyIndex peer) const { return channel_->PeerStatus(peer); }
  /// Waits for any event until `deadline`, ignoring failures (used while parties find each other).
  /// Peers that came up are reported in `came_up`.
  void WaitForAnything(absl::Time deadline, std::vector<wire::PartyIndex>& came_up);

  /// Tells the others that this attempt is void, once an attempt; never fails, and waits for full
  /// queues two seconds at most. What was heard is
  /// passed on, so that whoever sees this party leave knows because of whom.
  void TellAbort(const Failure& failure);
  /// Drops a peer's connection, after it broke the rules.
  void Drop(wire::PartyIndex peer, const absl::Status& why) { channel_->Drop(peer, why); }
  void Close();

  /// A Status that names the culprit in one sentence.
  absl::Status FailureStatus(const Failure& failure, absl::string_view detail = "") const;
  /// Set by a signal handler: Await and ServeUntil then return CANCELLED.
  void SetInterrupt(const std::function<bool()>& interrupted) { interrupted_ = interrupted; }
  /// Bytes sent since the start, over all peers, frames included; 0 without a channel.
  uint64_t sent_bytes() const;
  /// Seconds spent waiting for each peer in Await and ServeUntil since the last call.
  std::vector<double> TakeWaits();

 private:
  struct Place {
    uint64_t step;
    Phase phase;
    uint8_t kind;
    wire::PartyIndex from;
    uint16_t layer, micro_batch;
    auto operator<=>(const Place&) const = default;
  };
  Place PlaceOf(wire::PartyIndex from, const wire::MessageHeader& header) const;
  absl::Status Pump(absl::Time deadline);
  absl::Status Handle(transport::Event event);
  absl::Status HandleMessage(wire::PartyIndex from, wire::Message message);
  absl::Status SendBy(absl::Time deadline, wire::PartyIndex to, wire::MessageKind kind,
                      uint16_t layer, uint16_t micro_batch, wire::Buffer payload);
  absl::Status WhyItLeft(wire::PartyIndex peer);
  absl::Status HandleAbort(wire::PartyIndex from, const wire::Message& message);
  absl::Status Deliver(const Place& place, wire::Message message);

  transport::Channel* channel_;
  border::EgressGate* gate_;
  const Options options_;
  std::map<wire::MessageKind, Handler> handlers_;
  uint64_t step_ = 0;
  Phase phase_ = Phase::kTraining;
  uint32_t attempt_ = 0;
  bool in_step_ = false;
  bool abort_told_ = false;
  std::map<Place, wire::Buffer> arrived_;
  std::set<Place> seen_;  // of the current step: duplicates change nothing
  std::vector<std::pair<wire::PartyIndex, wire::Message>> early_;  // of a later step or attempt
  std::vector<std::optional<std::pair<wire::MessageHeader, wire::Buffer>>> hello_;
  std::vector<bool> up_;
  std::vector<absl::Time> last_heard_;
  std::vector<double> waits_;
  std::function<bool()> interrupted_;
};

}  // namespace pcmoe::exchange
