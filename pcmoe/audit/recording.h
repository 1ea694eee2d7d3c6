// pcmoe/audit/recording.h: what a party received, read back from its recording.
#pragma once

#include <filesystem>
#include <span>
#include <vector>

#include "pcmoe/base/file.h"
#include "pcmoe/base/status.h"
#include "pcmoe/wire/record.h"

namespace pcmoe::audit {

/// A message of a recording; its payload is a view into the recording.
struct Received {
  wire::RecordHeader record;
  std::span<const uint8_t> payload;
};

/// A recording (OUTPUT_DIR/received/messages.bin) mapped into memory. Immutable: thread-safe.
class Recording {
 public:
  /// NOT_FOUND when there is none; DATA_LOSS naming the byte where it stops being one. A record
  /// that is cut off at the very end, as a killed run leaves it, is left out.
  static absl::StatusOr<Recording> Open(const std::filesystem::path& path);

  const std::vector<Received>& messages() const { return messages_; }
  /// Bytes of half a record at the end; 0 as a rule.
  uint64_t cut_bytes() const { return cut_bytes_; }

 private:
  explicit Recording(base::MappedFile file) : file_(std::move(file)) {}
  base::MappedFile file_;
  std::vector<Received> messages_;
  uint64_t cut_bytes_ = 0;
};

}  // namespace pcmoe::audit
