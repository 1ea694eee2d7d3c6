// pcmoe/transport/loopback.h: channels between parties of one process, with faults on request.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "pcmoe/transport/channel.h"
#include "pcmoe/wire/frame.h"

namespace pcmoe::transport {

struct LoopbackOptions {
  wire::RunId run{};
  uint64_t max_message_bytes = uint64_t{1} << 30;
  /// Messages on their way from one party to another; Send waits above that. One message is always
  /// let through, however large.
  uint64_t queue_bytes = uint64_t{256} << 20;
  absl::Duration delay = absl::ZeroDuration();     ///< From Send to arrival.
  absl::Duration redial = absl::Milliseconds(10);  ///< From a lost connection to the next.
};

/// The fake network of tests: every message goes through the same frames as on a real one and is
/// copied. Thread-safe. Messages that had not arrived when a connection is lost are lost.
class LoopbackMesh : public std::enable_shared_from_this<LoopbackMesh> {
 public:
  static std::shared_ptr<LoopbackMesh> Create(int parties, const LoopbackOptions& options);

  /// The channel of `party`, connected to all others that are open. Destroying it without Close is
  /// the death of the party; after that it may be opened again.
  std::unique_ptr<Channel> Open(wire::PartyIndex party);

  /// One direction gets slower (from the next message on).
  void SetDelay(wire::PartyIndex from, wire::PartyIndex to, absl::Duration delay);
  /// One direction stays silent while `hang` is set: messages wait, nothing is lost.
  void SetHang(wire::PartyIndex from, wire::PartyIndex to, bool hang);
  /// The connection breaks and stays broken until Restore.
  void Cut(wire::PartyIndex a, wire::PartyIndex b);
  void Restore(wire::PartyIndex a, wire::PartyIndex b);
  /// One bit of the next frame is flipped.
  void DamageNextFrame(wire::PartyIndex from, wire::PartyIndex to);

 private:
  friend class LoopbackChannel;
  struct Arrival {
    absl::Time time;
    uint64_t number = 0;  // order of arrivals of the same time
    uint64_t framed_bytes = 0;
    Event event;
  };
  // One direction between two parties.
  struct Link {
    std::deque<Arrival> arrivals;
    uint64_t queued_bytes = 0;
    std::unique_ptr<wire::FrameAssembler> assembler;
    absl::Duration delay;
    bool hang = false;
    bool damage_next = false;
    bool connected = false;  // same in both directions
    bool cut = false;        // same in both directions
    absl::Time up_at;
    absl::Status why_down = absl::UnavailableError("not opened yet");
    Traffic traffic;  // sent: by `from`; received: by `to`
  };

  LoopbackMesh(int parties, const LoopbackOptions& options);
  Link& At(wire::PartyIndex from, wire::PartyIndex to);
  absl::Status Send(wire::PartyIndex from, wire::Sealed message, absl::Time deadline);
  std::optional<Event> Next(wire::PartyIndex self, absl::Time deadline);
  void Shut(wire::PartyIndex party, bool keep_messages);
  // The following need mutex_.
  void Push(Link& link, absl::Time time, uint64_t framed_bytes, Event event);
  void Connect(wire::PartyIndex a, wire::PartyIndex b, absl::Duration after);
  void Disconnect(wire::PartyIndex a, wire::PartyIndex b, const absl::Status& why_a,
                  const absl::Status& why_b, bool keep_messages);
  absl::StatusOr<wire::Message> Transmit(Link& link, const wire::Sealed& message);
  Link* EarliestTo(wire::PartyIndex self, wire::PartyIndex& from);

  const int parties_;
  const LoopbackOptions options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Link> links_;   // guarded by mutex_; from * parties_ + to
  std::vector<bool> open_;    // guarded by mutex_
  uint64_t next_number_ = 0;  // guarded by mutex_
};

/// `n` connected channels, party by party.
std::vector<std::unique_ptr<Channel>> MakeLoopback(int n, const LoopbackOptions& options = {});

}  // namespace pcmoe::transport
