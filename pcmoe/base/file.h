// pcmoe/base/file.h: reading and durable writing of files. Every error names the path and the
// cause.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "pcmoe/base/status.h"

namespace pcmoe::base {

/// The whole file; INVALID_ARGUMENT when it is larger than `max_bytes`, NOT_FOUND when missing.
absl::StatusOr<std::string> ReadFile(const std::filesystem::path& path,
                                     uint64_t max_bytes = uint64_t{1} << 30);

/// Writes `bytes` to a temporary file beside `path`, syncs it, renames it over `path` and syncs the
/// folder: after a crash the file holds either the old bytes or the new ones. `mode` is exact.
absl::Status WriteFileAtomically(const std::filesystem::path& path, std::string_view bytes,
                                 int mode = 0644);

/// mkdir -p with `mode` for the last folder.
absl::Status CreateFolder(const std::filesystem::path& path, int mode = 0755);

/// fsync of a file or of a folder's entries.
absl::Status SyncPath(const std::filesystem::path& path);

/// Syncs every file below `temporary`, renames it to `final_path` (which must not exist) and syncs
/// the parent: after a crash the folder is there with all its files, or not at all.
absl::Status PublishFolder(const std::filesystem::path& temporary,
                           const std::filesystem::path& final_path);

/// A file mapped read-only; unmapped when destroyed. Movable.
class MappedFile {
 public:
  static absl::StatusOr<MappedFile> Open(const std::filesystem::path& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();
  std::span<const uint8_t> bytes() const { return {data_, size_}; }

 private:
  MappedFile(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace pcmoe::base
