// pcmoe/transport/grpc_session.cc: one connection; see grpc_session.h.
#include "pcmoe/transport/grpc_session.h"

#include <grpcpp/support/slice.h>

#include <utility>

#include "absl/time/clock.h"

namespace pcmoe::transport {
namespace {

void ReleaseOwner(void* owner) { delete static_cast<std::shared_ptr<void>*>(owner); }

// The header is copied; the chunk is lent, and its owner lives until gRPC has sent it.
grpc::ByteBuffer BufferOf(const wire::Frame& frame, const std::shared_ptr<void>& owner) {
  const grpc::Slice header(frame.header.data(), frame.header.size());
  if (frame.chunk.empty()) return grpc::ByteBuffer(&header, 1);
  const grpc::Slice slices[] = {
      header, grpc::Slice(const_cast<uint8_t*>(frame.chunk.data()), frame.chunk.size(),
                          ReleaseOwner, new std::shared_ptr<void>(owner))};
  return grpc::ByteBuffer(slices, 2);
}

}  // namespace

Session::Session(Core* core, wire::PartyIndex peer, Stream* stream)
    : core_(core),
      peer_(peer),
      stream_(stream),
      last_frame_ns_(absl::GetCurrentTimeNanos()),
      assembler_(core->options().run, core->options().max_message_bytes) {}

absl::Duration Session::Silence() const {
  return absl::Nanoseconds(absl::GetCurrentTimeNanos() - last_frame_ns_.load());
}

void Session::OnUp() {
  up_ = true;
  last_frame_ns_ = absl::GetCurrentTimeNanos();
  if (!core_->Attach(shared_from_this())) {
    EndStream(Stream::Ending::kReset);
    return;
  }
  ReadMore();
  // The stream may have been lost before it was attached, and nobody else would say so now.
  const std::shared_lock lock(gate_);
  if (ended_) {
    core_->Detach(this, absl::UnavailableError(
                            absl::StrCat(core_->NameOf(peer_), ": the connection was lost")));
  }
}

void Session::ReadMore() {
  const std::shared_lock lock(gate_);
  if (!ended_) stream_->Read(&reading_);
}

void Session::OnRead(bool ok) {
  if (!ok) return;
  last_frame_ns_ = absl::GetCurrentTimeNanos();
  absl::Status why;
  if (TakeFrame(why)) {
    ReadMore();
  } else if (!why.ok()) {
    Fail(WithContext(why, core_->NameOf(peer_)));
  }
}

// Whether to read on; an error in `why` ends the connection.
bool Session::TakeFrame(absl::Status& why) {
  auto slices = std::make_shared<std::vector<grpc::Slice>>();
  if (!reading_.Dump(slices.get()).ok()) {
    why = absl::DataLossError("a frame could not be read");
    return false;
  }
  std::vector<std::span<const uint8_t>> pieces;
  uint64_t bytes = 0;
  for (const grpc::Slice& slice : *slices) {
    pieces.emplace_back(slice.begin(), slice.size());
    bytes += slice.size();
  }
  reading_.Clear();
  auto taken = assembler_.Take(pieces, slices);
  if (!taken.ok()) {
    why = taken.status();
    return false;
  }
  std::optional<wire::Message> message = *std::move(taken);
  const std::lock_guard lock(core_->mutex_);
  Core::Peer& peer = core_->At(peer_);
  if (peer.session.get() != this) return false;
  peer.traffic.received_bytes += bytes;
  if (!message.has_value()) return true;
  ++peer.traffic.received_messages;
  const uint64_t framed_bytes = wire::FramedBytes(message->payload.size());
  peer.inbox_bytes += framed_bytes;
  core_->inbox_.push_back(
      {{Event::Kind::kMessage, peer_, *std::move(message), absl::OkStatus()}, framed_bytes});
  core_->changed_.notify_all();
  read_paused_ = peer.inbox_bytes > core_->options_.inbox_bytes;
  return !read_paused_;
}

// Called by one thread at a time: the one that set write_active_, then those of OnWritten.
void Session::WriteNext() {
  std::optional<wire::Frame> frame;
  if (encoder_.has_value()) frame = encoder_->Next();
  if (!frame.has_value()) {
    const std::lock_guard lock(core_->mutex_);
    if (outgoing_.empty()) {
      encoder_.reset();
      current_.reset();
      write_active_ = false;
      core_->changed_.notify_all();
      return;
    }
    current_ = std::move(outgoing_.front());
    outgoing_.pop_front();
    ++core_->At(peer_).traffic.sent_messages;
  }
  if (!frame.has_value()) {
    encoder_.emplace(core_->options().run, current_->header(), current_->payload().bytes());
    frame = encoder_->Next();
  }
  // NOLINTBEGIN(bugprone-unchecked-optional-access): a message has one frame at least, and current_
  // is the one that encoder_ encodes.
  frame_bytes_ = frame->header.size() + frame->chunk.size();
  writing_ = BufferOf(*frame, current_->payload().owner());
  // NOLINTEND(bugprone-unchecked-optional-access)
  {
    const std::lock_guard lock(core_->mutex_);
    core_->At(peer_).traffic.sent_bytes += frame_bytes_;
  }
  const std::shared_lock lock(gate_);
  if (!ended_) stream_->Write(&writing_);
}

void Session::OnWritten(bool ok) {
  if (!ok) return;
  {
    const std::lock_guard lock(core_->mutex_);
    queued_bytes_ -= frame_bytes_;
    core_->changed_.notify_all();
  }
  WriteNext();
}

void Session::Fail(const absl::Status& why) {
  core_->Detach(this, why);
  EndStream(Stream::Ending::kReset);
}

void Session::EndStream(Stream::Ending ending) {
  {
    const std::unique_lock lock(gate_);
    if (std::exchange(ended_, true)) return;
  }
  // Outside the lock: the stream may call back and be gone before this returns. Nobody else uses
  // it, now that ended_ is set.
  stream_->End(ending);
}

}  // namespace pcmoe::transport
