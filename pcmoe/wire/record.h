// pcmoe/wire/record.h: a received message as it lies in a recording, for `pcmoe audit`.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "pcmoe/base/status.h"
#include "pcmoe/wire/message.h"

namespace pcmoe::wire {

/// Every record starts with this many bytes, little-endian; the payload follows.
inline constexpr size_t kRecordHeaderBytes = 40;
inline constexpr uint32_t kRecordMagic = 0x524D4350;  // "PCMR"

/// What is kept of a message besides its payload. Plain data.
struct RecordHeader {
  MessageHeader header;
  PartyIndex from = 0;
  uint64_t payload_bytes = 0;
  bool operator==(const RecordHeader&) const = default;
};

/// u32 magic, u8 kind, 3 zero bytes, u16 layer, micro_batch, from, zero, u32 attempt, zero,
/// u64 step, payload_bytes.
std::array<uint8_t, kRecordHeaderBytes> EncodeRecordHeader(const RecordHeader& record);

/// DATA_LOSS with the reason: not a record, or a kind that does not exist.
absl::StatusOr<RecordHeader> DecodeRecordHeader(std::span<const uint8_t, kRecordHeaderBytes> bytes);

}  // namespace pcmoe::wire
