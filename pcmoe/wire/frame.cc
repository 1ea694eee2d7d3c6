// pcmoe/wire/frame.cc: see frame.h.
#include "pcmoe/wire/frame.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace pcmoe::wire {
namespace {

static_assert(std::endian::native == std::endian::little,
              "frames are written as they lie in memory");

// Where the fields of a header start.
constexpr size_t kMagicAt = 0;
constexpr size_t kVersionAt = 4;
constexpr size_t kKindAt = 5;
constexpr size_t kFlagsAt = 6;
constexpr size_t kRunAt = 8;
constexpr size_t kStepAt = 24;
constexpr size_t kAttemptAt = 32;
constexpr size_t kLayerAt = 36;
constexpr size_t kMicroBatchAt = 38;
constexpr size_t kTotalAt = 40;
constexpr size_t kOffsetAt = 48;
constexpr size_t kChecksumAt = 56;

template <typename T>
void Put(std::span<uint8_t, kFrameHeaderBytes> bytes, size_t at, const T& value) {
  std::memcpy(bytes.data() + at, &value, sizeof(value));
}

template <typename T>
T Get(std::span<const uint8_t, kFrameHeaderBytes> bytes, size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof(value));
  return value;
}

// The chunk's own checksum takes the place of the checksum while the header is summed, so header
// and chunk need not lie side by side.
uint64_t FrameChecksum(std::span<const uint8_t, kFrameHeaderBytes> header,
                       std::span<const uint8_t> chunk) {
  std::array<uint8_t, kFrameHeaderBytes> bytes;
  std::ranges::copy(header, bytes.begin());
  Put(std::span<uint8_t, kFrameHeaderBytes>(bytes), kChecksumAt, base::Checksum(chunk));
  return base::Checksum(bytes);
}

// Copies `count` bytes from byte `from` of the concatenated pieces; they hold that many.
void CopyOut(std::span<const std::span<const uint8_t>> pieces, size_t from, uint8_t* to,
             size_t count) {
  for (const auto piece : pieces) {
    if (count == 0) return;
    if (from >= piece.size()) {
      from -= piece.size();
      continue;
    }
    const size_t taken = std::min(piece.size() - from, count);
    std::memcpy(to, piece.data() + from, taken);
    to += taken;
    count -= taken;
    from = 0;
  }
}

bool IsAligned(const uint8_t* data) {
  return reinterpret_cast<uintptr_t>(data) % kPayloadAlignment == 0;
}

}  // namespace

RunId RunIdOf(const base::Sha256& manifest_digest) {
  RunId run;
  std::copy_n(manifest_digest.begin(), run.size(), run.begin());
  return run;
}

std::optional<Frame> FrameEncoder::Next() {
  if (done_) return std::nullopt;
  Frame frame{{}, payload_.subspan(offset_, std::min(kMaxChunkBytes, payload_.size() - offset_))};
  const std::span<uint8_t, kFrameHeaderBytes> bytes(frame.header);
  Put(bytes, kMagicAt, kFrameMagic);
  Put(bytes, kVersionAt, kFrameVersion);
  Put(bytes, kKindAt, static_cast<uint8_t>(header_.kind));
  Put(bytes, kFlagsAt, uint16_t{0});
  Put(bytes, kRunAt, run_);
  Put(bytes, kStepAt, header_.step);
  Put(bytes, kAttemptAt, header_.attempt);
  Put(bytes, kLayerAt, header_.layer);
  Put(bytes, kMicroBatchAt, header_.micro_batch);
  Put(bytes, kTotalAt, static_cast<uint64_t>(payload_.size()));
  Put(bytes, kOffsetAt, offset_);
  Put(bytes, kChecksumAt, FrameChecksum(bytes, frame.chunk));
  offset_ += frame.chunk.size();
  done_ = offset_ == payload_.size();
  return frame;
}

absl::StatusOr<FrameAssembler::Parsed> FrameAssembler::Parse(
    std::span<const uint8_t, kFrameHeaderBytes> bytes) const {
  if (Get<uint32_t>(bytes, kMagicAt) != kFrameMagic) {
    return absl::DataLossError("the peer sent something that is not a pcmoe frame");
  }
  if (Get<uint8_t>(bytes, kVersionAt) != kFrameVersion) {
    return absl::FailedPreconditionError(
        "the peer speaks another version of the protocol; run the same pcmoe everywhere");
  }
  if (Get<RunId>(bytes, kRunAt) != run_) {
    return absl::FailedPreconditionError(
        "the peer runs another manifest; give all parties the same one");
  }
  const auto kind = Get<uint8_t>(bytes, kKindAt);
  if (kind < kFirstMessageKind || kind > kLastMessageKind) {
    return absl::DataLossError("the peer sent a frame of an unknown kind");
  }
  if (Get<uint16_t>(bytes, kFlagsAt) != 0) {
    return absl::DataLossError("the peer sent a frame with unknown flags");
  }
  Parsed parsed;
  parsed.header.kind = static_cast<MessageKind>(kind);
  parsed.header.step = Get<uint64_t>(bytes, kStepAt);
  parsed.header.attempt = Get<uint32_t>(bytes, kAttemptAt);
  parsed.header.layer = Get<uint16_t>(bytes, kLayerAt);
  parsed.header.micro_batch = Get<uint16_t>(bytes, kMicroBatchAt);
  parsed.total_bytes = Get<uint64_t>(bytes, kTotalAt);
  parsed.offset = Get<uint64_t>(bytes, kOffsetAt);
  parsed.checksum = Get<uint64_t>(bytes, kChecksumAt);
  return parsed;
}

absl::Status FrameAssembler::CheckPlace(const Parsed& parsed, uint64_t chunk_bytes) const {
  if (parsed.total_bytes > max_message_bytes_) {
    return absl::ResourceExhaustedError(
        "the peer sent a message larger than limits.max_message_bytes of the manifest");
  }
  if (parsed.offset != (started_ ? received_ : 0)) {
    return absl::DataLossError("the peer sent frames out of order");
  }
  if (started_ && (parsed.header != current_ || parsed.total_bytes != payload_.size())) {
    return absl::DataLossError("the peer began a message before the one before was complete");
  }
  // offset <= total: it is zero, or it equals received_, which is below the size of payload_.
  if (chunk_bytes != std::min<uint64_t>(kMaxChunkBytes, parsed.total_bytes - parsed.offset)) {
    return absl::DataLossError("the peer sent a truncated or overlong frame");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<Message>> FrameAssembler::Take(
    std::span<const std::span<const uint8_t>> pieces, const std::shared_ptr<void>& owner) {
  if (failed_) return absl::DataLossError("the connection failed before; it must be dropped");
  auto result = TakeChecked(pieces, owner);
  if (!result.ok()) {
    failed_ = true;
    payload_ = Buffer();
  }
  return result;
}

absl::StatusOr<std::optional<Message>> FrameAssembler::TakeChecked(
    std::span<const std::span<const uint8_t>> pieces, const std::shared_ptr<void>& owner) {
  size_t frame_bytes = 0;
  for (const auto piece : pieces) frame_bytes += piece.size();
  if (frame_bytes < kFrameHeaderBytes || frame_bytes > kMaxFrameBytes) {
    return absl::DataLossError("the peer sent a truncated or overlong frame");
  }
  std::array<uint8_t, kFrameHeaderBytes> header;
  CopyOut(pieces, 0, header.data(), header.size());
  PCMOE_ASSIGN_OR_RETURN(const Parsed parsed, Parse(header));
  const size_t chunk_bytes = frame_bytes - kFrameHeaderBytes;
  PCMOE_RETURN_IF_ERROR(CheckPlace(parsed, chunk_bytes));

  const bool whole = chunk_bytes == parsed.total_bytes;
  if (!started_) {
    current_ = parsed.header;
    received_ = 0;
    const uint8_t* in_place = pieces.front().data() + kFrameHeaderBytes;
    if (whole && owner != nullptr && pieces.size() == 1 && IsAligned(in_place)) {
      // The owner lends its bytes for good: nobody else writes to a received slice.
      payload_ = Buffer(owner, {const_cast<uint8_t*>(in_place), chunk_bytes});
    } else {
      payload_ = Buffer::Allocate(parsed.total_bytes);
      CopyOut(pieces, kFrameHeaderBytes, payload_.writable().data(), chunk_bytes);
    }
    started_ = true;
  } else {
    CopyOut(pieces, kFrameHeaderBytes, payload_.writable().data() + received_, chunk_bytes);
  }
  if (FrameChecksum(header, payload_.bytes().subspan(received_, chunk_bytes)) != parsed.checksum) {
    return absl::DataLossError("a frame was damaged on its way");
  }
  received_ += chunk_bytes;
  if (received_ < payload_.size()) return std::optional<Message>();
  started_ = false;
  return std::optional<Message>(Message{current_, std::exchange(payload_, Buffer())});
}

}  // namespace pcmoe::wire
