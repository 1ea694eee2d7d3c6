// pcmoe/transport/grpc_session.h: one connection to one peer, and what the connections share.
#pragma once

#include <grpcpp/support/byte_buffer.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <shared_mutex>
#include <string>
#include <vector>

#include "pcmoe/transport/channel.h"
#include "pcmoe/transport/grpc_channel.h"
#include "pcmoe/wire/frame.h"

namespace pcmoe::transport {

class Session;

/// The gRPC stream under a session, dialled or accepted. Read and Write come back as OnRead and
/// OnWritten on a thread of gRPC, never before they have returned.
class Stream {
 public:
  virtual ~Stream() = default;
  virtual void Read(grpc::ByteBuffer* frame) = 0;
  virtual void Write(const grpc::ByteBuffer* frame) = 0;
  /// How a stream ends: kAfterWrites, what was written arrives first; kReset, at once; kIsOver, it
  /// has ended already and is only cleaned up.
  enum class Ending { kAfterWrites, kReset, kIsOver };
  /// The last call of a session: the stream may be gone when it returns.
  virtual void End(Ending ending) = 0;
  /// Resets the stream; any time before StreamDone.
  virtual void Cancel() = 0;
};

/// State of all peers: sessions, inbox, counters. Thread-safe. Outlives its sessions.
class Core {
 public:
  explicit Core(const GrpcChannelOptions& options);

  const GrpcChannelOptions& options() const { return options_; }
  bool IsPeer(wire::PartyIndex peer) const;
  const std::string& NameOf(wire::PartyIndex peer) const;

  absl::Status Send(wire::Sealed message, absl::Time deadline);
  std::optional<Event> Next(absl::Time deadline);
  absl::Status PeerStatus(wire::PartyIndex peer) const;
  Traffic TrafficWith(wire::PartyIndex peer) const;
  std::shared_ptr<Session> SessionOf(wire::PartyIndex peer) const;

  /// `session` is its peer's connection from now on; one before it is lost. False after Stop.
  bool Attach(const std::shared_ptr<Session>& session);
  /// `session` is no longer its peer's connection, if it was.
  void Detach(const Session* session, const absl::Status& why);
  /// A connection could not be made; logged when the reason is new and about identity.
  void NoteFailure(wire::PartyIndex peer, const absl::Status& why);
  /// Waits until every session has sent what is queued; Next and Send end after Stop.
  void Flush(absl::Time deadline);
  void Stop();

  /// Streams of gRPC that are not done yet; WaitForStreams cancels those left at the deadline, and
  /// waits for them too. After StreamDone a stream does not touch the Core.
  void StreamStarted(Stream* stream);
  void StreamDone(Stream* stream);
  void WaitForStreams(absl::Time deadline);

 private:
  friend class Session;
  struct Peer {
    std::shared_ptr<Session> session;  // null: down
    uint64_t inbox_bytes = 0;
    Traffic traffic;
    absl::Status why_down = absl::UnavailableError("not reached yet");
  };
  struct Entry {
    Event event;
    uint64_t framed_bytes = 0;
  };
  Peer& At(wire::PartyIndex peer) { return peers_[static_cast<size_t>(peer)]; }
  void DetachLocked(Peer& peer, wire::PartyIndex index, const absl::Status& why);

  const GrpcChannelOptions options_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Peer> peers_;    // guarded by mutex_
  std::deque<Entry> inbox_;    // guarded by mutex_
  std::set<Stream*> streams_;  // guarded by mutex_
  bool stopped_ = false;       // guarded by mutex_
};

/// One connection: cuts messages into frames on their way out, puts frames together on their way
/// in.
class Session : public std::enable_shared_from_this<Session> {
 public:
  /// `stream` is valid until its End was called, which the session does exactly once.
  Session(Core* core, wire::PartyIndex peer, Stream* stream);

  wire::PartyIndex peer() const { return peer_; }
  bool was_up() const { return up_; }
  /// Since the last frame of the peer.
  absl::Duration Silence() const;

  /// Called by the stream. OnUp once, before OnRead; OnRead(false): nothing will come any more.
  void OnUp();
  void OnRead(bool ok);
  void OnWritten(bool ok);

  /// Ends the stream; `why` is for our own operator. Does nothing after the first time.
  void Fail(const absl::Status& why);
  void EndStream(Stream::Ending ending);

 private:
  friend class Core;
  void WriteNext();
  void ReadMore();
  bool TakeFrame(absl::Status& why);

  Core* const core_;
  const wire::PartyIndex peer_;
  Stream* const stream_;
  std::shared_mutex gate_;  // shared: the stream is being used; exclusive: it is being ended
  bool ended_ = false;      // guarded by gate_
  std::atomic<bool> up_ = false;
  std::atomic<int64_t> last_frame_ns_;

  wire::FrameAssembler assembler_;  // used by OnRead alone
  grpc::ByteBuffer reading_;
  std::optional<wire::Sealed> current_;        // used by the one writer
  std::optional<wire::FrameEncoder> encoder_;  // of current_
  grpc::ByteBuffer writing_;

  std::deque<wire::Sealed> outgoing_;  // guarded by core_->mutex_
  uint64_t queued_bytes_ = 0;          // guarded by core_->mutex_
  uint64_t frame_bytes_ = 0;           // of writing_
  bool write_active_ = false;          // guarded by core_->mutex_
  bool read_paused_ = false;           // guarded by core_->mutex_
};

}  // namespace pcmoe::transport
