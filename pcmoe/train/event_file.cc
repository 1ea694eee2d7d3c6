// pcmoe/train/event_file.cc: see event_file.h. The format: tensorflow/core/lib/io/record_writer.h,
// tensorflow/core/util/event.proto and framework/summary.proto; protobuf's wire format by hand,
// since generated headers do not go with LibTorch's in one file.
#include "pcmoe/train/event_file.h"

#include <unistd.h>

#include <array>
#include <bit>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "pcmoe/base/file.h"

namespace pcmoe::train {
namespace {

constexpr std::array<uint32_t, 256> MakeCrcTable() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82F63B78U : 0U);
    table[i] = crc;
  }
  return table;
}

template <typename Number>
void AppendLittleEndian(Number number, std::string& out) {
  for (size_t i = 0; i < sizeof(number); ++i) out.push_back(static_cast<char>(number >> (8 * i)));
}

void AppendMaskedCrc(std::string_view bytes, std::string& out) {
  const uint32_t crc = Crc32c(bytes);
  AppendLittleEndian(static_cast<uint32_t>(std::rotr(crc, 15) + 0xA282EAD8U), out);
}

void AppendVarint(uint64_t value, std::string& out) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}

enum class Wire : uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

void AppendKey(uint32_t field, Wire wire, std::string& out) {
  AppendVarint(field << 3 | static_cast<uint32_t>(wire), out);
}

void AppendBytes(uint32_t field, std::string_view bytes, std::string& out) {
  AppendKey(field, Wire::kBytes, out);
  AppendVarint(bytes.size(), out);
  out.append(bytes);
}

// An Event's wall_time = 1 and step = 2.
std::string EventAt(int64_t step) {
  std::string event;
  AppendKey(1, Wire::kFixed64, event);
  AppendLittleEndian(
      std::bit_cast<uint64_t>(absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch())), event);
  AppendKey(2, Wire::kVarint, event);
  AppendVarint(static_cast<uint64_t>(step), event);
  return event;
}

}  // namespace

uint32_t Crc32c(std::string_view bytes) {
  static constexpr std::array<uint32_t, 256> kTable = MakeCrcTable();
  uint32_t crc = ~0U;
  for (const char byte : bytes) {
    crc = (crc >> 8) ^ kTable[(crc ^ static_cast<uint8_t>(byte)) & 0xFFU];
  }
  return ~crc;
}

std::string TagOf(std::string_view name) {
  constexpr std::string_view kEval = "eval_";
  const bool eval = name.starts_with(kEval);
  return (eval ? "eval/" : "train/") + std::string(name.substr(eval ? kEval.size() : 0));
}

absl::StatusOr<EventFile> EventFile::Create(const std::filesystem::path& folder) {
  PCMOE_RETURN_IF_ERROR(base::CreateFolder(folder, 0700));
  const std::filesystem::path path =
      folder / absl::StrFormat("events.out.tfevents.%010d.pcmoe.%d",
                               absl::ToUnixSeconds(absl::Now()), getpid());
  std::FILE* file = std::fopen(path.c_str(), "abe");
  if (file == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat(path.string(), ": cannot be written"));
  }
  EventFile result(file);
  std::string event = EventAt(0);
  AppendBytes(3, "brain.Event:2", event);  // file_version
  result.Write(event);
  return result;
}

void EventFile::Scalars(int64_t step, const std::map<std::string, double>& values) {
  std::string summary;
  for (const auto& [tag, value] : values) {
    std::string entry;
    AppendBytes(1, tag, entry);
    AppendKey(2, Wire::kFixed32, entry);  // simple_value
    AppendLittleEndian(std::bit_cast<uint32_t>(static_cast<float>(value)), entry);
    AppendBytes(1, entry, summary);
  }
  std::string event = EventAt(step);
  AppendBytes(5, summary, event);
  Write(event);
}

void EventFile::GoOnFrom(int64_t step) {
  std::string session;
  AppendKey(1, Wire::kVarint, session);
  AppendVarint(1, session);  // SessionLog.START: what has this step or a later one is void
  std::string event = EventAt(step + 1);
  AppendBytes(7, session, event);
  Write(event);
}

void EventFile::Write(const std::string& event) {
  std::string record;
  AppendLittleEndian(static_cast<uint64_t>(event.size()), record);
  AppendMaskedCrc(std::string(record), record);
  record += event;
  AppendMaskedCrc(event, record);
  std::fwrite(record.data(), 1, record.size(), file_.get());
  std::fflush(file_.get());
}

}  // namespace pcmoe::train
