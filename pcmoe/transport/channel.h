// pcmoe/transport/channel.h: the one way in and out of a party: sealed messages out, events in.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "pcmoe/base/status.h"
#include "pcmoe/wire/message.h"

namespace pcmoe::transport {

/// Something that happened, in the order of arrival for each peer.
struct Event {
  enum class Kind {
    kPeerUp,    ///< A (new) connection to `peer` stands; everything before it is void.
    kPeerDown,  ///< The connection is gone; `why` has one sentence for the operator.
    kMessage,   ///< `message` is whole and undamaged.
  };
  Kind kind = Kind::kMessage;
  wire::PartyIndex peer = 0;
  wire::Message message;
  absl::Status why;
};

/// Bytes as handed to, or received from, the network library: frames, headers included.
struct Traffic {
  uint64_t sent_bytes = 0;
  uint64_t received_bytes = 0;
  uint64_t sent_messages = 0;
  uint64_t received_messages = 0;
};

/// Connections to all other parties, kept up in the background: a lost one is dialled again until
/// Close. Messages to one peer arrive whole, once and in order, or the connection goes down. All
/// methods are thread-safe; one thread calls Next.
class Channel {
 public:
  virtual ~Channel() = default;
  virtual int parties() const = 0;
  virtual wire::PartyIndex self() const = 0;

  /// Queues `message`; waits while the peer's queue is full. UNAVAILABLE when the peer is down,
  /// DEADLINE_EXCEEDED when there was no room by `deadline`. Whether the peer got it is not known.
  virtual absl::Status Send(wire::Sealed message, absl::Time deadline) = 0;

  /// The next event, or nothing by `deadline`.
  virtual std::optional<Event> Next(absl::Time deadline) = 0;

  /// Drops the connection to a peer that broke the protocol; `why` stays home. It will be dialled
  /// again. The peer gets a kPeerDown.
  virtual void Drop(wire::PartyIndex peer, const absl::Status& why) = 0;

  /// OK while `peer` is connected, else the last reason why it is not: UNAUTHENTICATED when it is
  /// not who it should be, or does not accept who this party is, which waiting does not heal.
  virtual absl::Status PeerStatus(wire::PartyIndex peer) const = 0;

  virtual Traffic TrafficWith(wire::PartyIndex peer) const = 0;

  /// Sends what is queued (until `deadline`), then closes every connection. Idempotent.
  virtual void Close(absl::Time deadline) = 0;
};

}  // namespace pcmoe::transport
