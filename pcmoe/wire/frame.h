// pcmoe/wire/frame.h: messages cut into frames, and frames put together again; docs/protocol.md.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include "pcmoe/base/digest.h"
#include "pcmoe/base/status.h"
#include "pcmoe/wire/message.h"

namespace pcmoe::wire {

/// Every frame starts with this many bytes, little-endian.
inline constexpr size_t kFrameHeaderBytes = 64;
/// The payload of every frame of a message but the last.
inline constexpr size_t kMaxChunkBytes = size_t{4} << 20;
inline constexpr size_t kMaxFrameBytes = kFrameHeaderBytes + kMaxChunkBytes;
/// Payloads of received messages start at a multiple of this address.
inline constexpr size_t kPayloadAlignment = 16;
inline constexpr uint32_t kFrameMagic = 0x464D4350;  // "PCMF"
inline constexpr uint8_t kFrameVersion = 1;

/// The federation in every frame: the first half of the manifest's digest.
using RunId = std::array<uint8_t, 16>;
RunId RunIdOf(const base::Sha256& manifest_digest);

/// Bytes on the channel for a message of `payload_bytes`, all frame headers included.
constexpr uint64_t FramedBytes(uint64_t payload_bytes) {
  const uint64_t frames = payload_bytes == 0 ? 1 : (payload_bytes - 1) / kMaxChunkBytes + 1;
  return payload_bytes + frames * kFrameHeaderBytes;
}

/// One frame to be sent: its header by value, its chunk as a view into the message's payload.
struct Frame {
  std::array<uint8_t, kFrameHeaderBytes> header;
  std::span<const uint8_t> chunk;
};

/// Cuts one message into frames without copying its payload. An empty payload makes one frame.
class FrameEncoder {
 public:
  /// The bytes of `payload` must outlive the frames.
  FrameEncoder(const RunId& run, const MessageHeader& header, std::span<const uint8_t> payload)
      : run_(run), header_(header), payload_(payload) {}
  /// The next frame, or nothing after the last.
  std::optional<Frame> Next();

 private:
  const RunId run_;
  const MessageHeader header_;
  const std::span<const uint8_t> payload_;
  uint64_t offset_ = 0;
  bool done_ = false;
};

/// Puts the frames of one connection together. After an error the connection must be dropped: every
/// further Take fails. Allocates at most `max_message_bytes`, after the header was checked. Errors
/// are constant sentences (they hold no byte of the peer's). Not thread-safe.
class FrameAssembler {
 public:
  FrameAssembler(const RunId& run, uint64_t max_message_bytes)
      : run_(run), max_message_bytes_(max_message_bytes) {}

  /// Takes one whole frame, given as consecutive `pieces` which `owner` keeps alive. Gives the
  /// message when this was its last frame. A message of one frame in one aligned piece keeps
  /// `owner` instead of copying. DATA_LOSS: damaged or not a frame; FAILED_PRECONDITION: another
  /// protocol version or federation; RESOURCE_EXHAUSTED: over the limit.
  absl::StatusOr<std::optional<Message>> Take(std::span<const std::span<const uint8_t>> pieces,
                                              const std::shared_ptr<void>& owner);

 private:
  struct Parsed {
    MessageHeader header;
    uint64_t total_bytes = 0;
    uint64_t offset = 0;
    uint64_t checksum = 0;
  };
  absl::StatusOr<Parsed> Parse(std::span<const uint8_t, kFrameHeaderBytes> bytes) const;
  absl::Status CheckPlace(const Parsed& parsed, uint64_t chunk_bytes) const;
  absl::StatusOr<std::optional<Message>> TakeChecked(
      std::span<const std::span<const uint8_t>> pieces, const std::shared_ptr<void>& owner);

  const RunId run_;
  const uint64_t max_message_bytes_;
  bool failed_ = false;
  bool started_ = false;  // payload_ holds the first `received_` bytes of `current_`
  MessageHeader current_;
  Buffer payload_;
  uint64_t received_ = 0;
};

}  // namespace pcmoe::wire
