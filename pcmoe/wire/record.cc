// pcmoe/wire/record.cc: see record.h.
#include "pcmoe/wire/record.h"

#include <cstring>

namespace pcmoe::wire {
namespace {

// Where the fields of a header start.
constexpr size_t kMagicAt = 0;
constexpr size_t kKindAt = 4;
constexpr size_t kLayerAt = 8;
constexpr size_t kMicroBatchAt = 10;
constexpr size_t kFromAt = 12;
constexpr size_t kAttemptAt = 16;
constexpr size_t kStepAt = 24;
constexpr size_t kPayloadAt = 32;

template <typename T>
void Put(std::span<uint8_t, kRecordHeaderBytes> bytes, size_t at, const T& value) {
  std::memcpy(bytes.data() + at, &value, sizeof(value));
}

template <typename T>
void Get(std::span<const uint8_t, kRecordHeaderBytes> bytes, size_t at, T& value) {
  std::memcpy(&value, bytes.data() + at, sizeof(value));
}

}  // namespace

std::array<uint8_t, kRecordHeaderBytes> EncodeRecordHeader(const RecordHeader& record) {
  std::array<uint8_t, kRecordHeaderBytes> bytes{};
  Put(bytes, kMagicAt, kRecordMagic);
  Put(bytes, kKindAt, static_cast<uint8_t>(record.header.kind));
  Put(bytes, kLayerAt, record.header.layer);
  Put(bytes, kMicroBatchAt, record.header.micro_batch);
  Put(bytes, kFromAt, static_cast<uint16_t>(record.from));
  Put(bytes, kAttemptAt, record.header.attempt);
  Put(bytes, kStepAt, record.header.step);
  Put(bytes, kPayloadAt, record.payload_bytes);
  return bytes;
}

absl::StatusOr<RecordHeader> DecodeRecordHeader(
    std::span<const uint8_t, kRecordHeaderBytes> bytes) {
  uint32_t magic = 0;
  uint8_t kind = 0;
  uint16_t from = 0;
  RecordHeader record;
  Get(bytes, kMagicAt, magic);
  Get(bytes, kKindAt, kind);
  Get(bytes, kFromAt, from);
  if (magic != kRecordMagic) return absl::DataLossError("is not a recorded message");
  if (kind < kFirstMessageKind || kind > kLastMessageKind) {
    return absl::DataLossError("holds a message of a kind that does not exist");
  }
  record.header.kind = static_cast<MessageKind>(kind);
  record.from = from;
  Get(bytes, kLayerAt, record.header.layer);
  Get(bytes, kMicroBatchAt, record.header.micro_batch);
  Get(bytes, kAttemptAt, record.header.attempt);
  Get(bytes, kStepAt, record.header.step);
  Get(bytes, kPayloadAt, record.payload_bytes);
  return record;
}

}  // namespace pcmoe::wire
