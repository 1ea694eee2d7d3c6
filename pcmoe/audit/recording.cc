// pcmoe/audit/recording.cc: see recording.h.
#include "pcmoe/audit/recording.h"

namespace pcmoe::audit {

absl::StatusOr<Recording> Recording::Open(const std::filesystem::path& path) {
  PCMOE_ASSIGN_OR_RETURN(base::MappedFile file, base::MappedFile::Open(path));
  Recording recording(std::move(file));
  const std::span<const uint8_t> bytes = recording.file_.bytes();
  for (size_t at = 0; at < bytes.size();) {
    const size_t left = bytes.size() - at;
    if (left < wire::kRecordHeaderBytes) {
      recording.cut_bytes_ = left;
      break;
    }
    const auto record =
        wire::DecodeRecordHeader(bytes.subspan(at).first<wire::kRecordHeaderBytes>());
    if (!record.ok()) {
      return absl::DataLossError(
          absl::StrCat(path.string(), ": byte ", at, " ", std::string(record.status().message())));
    }
    if (record->payload_bytes > left - wire::kRecordHeaderBytes) {
      recording.cut_bytes_ = left;
      break;
    }
    const auto size = static_cast<size_t>(record->payload_bytes);
    recording.messages_.push_back({*record, bytes.subspan(at + wire::kRecordHeaderBytes, size)});
    at += wire::kRecordHeaderBytes + size;
  }
  return recording;
}

}  // namespace pcmoe::audit
