// pcmoe/data/jsonl.h: documents from JSON Lines files, one at a time.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>

#include "pcmoe/base/status.h"

namespace pcmoe::data {

/// What a JSONL file looks like.
struct JsonlOptions {
  std::string column = "text";                   ///< The key whose string is the document.
  uint64_t max_line_bytes = uint64_t{64} << 20;  ///< Longer lines are an error.
};

/// Reads a file line by line, so that its size does not matter. Lines of white space are skipped,
/// so is a byte order mark at the very beginning; "\r\n" ends a line too. Not thread-safe. Movable.
class JsonlReader {
 public:
  /// NOT_FOUND or INVALID_ARGUMENT naming the file when it cannot be opened.
  static absl::StatusOr<JsonlReader> Open(const std::filesystem::path& path,
                                          JsonlOptions options = {});

  /// The next document, empty at the end of the file. INVALID_ARGUMENT "FILE:LINE: ..." when a line
  /// is not valid UTF-8, not a JSON object, has no such key, or holds no string there.
  absl::StatusOr<std::optional<std::string>> Next();

  /// Number of the line that Next() read last, from 1.
  int64_t line() const { return line_; }

 private:
  JsonlReader(std::filesystem::path path, JsonlOptions options, std::ifstream file)
      : path_(std::move(path)), options_(std::move(options)), file_(std::move(file)) {}
  absl::StatusOr<bool> ReadLine(std::string& line);
  absl::StatusOr<std::string> Parse(const std::string& line) const;
  absl::Status Error(const std::string& what) const;

  std::filesystem::path path_;
  JsonlOptions options_;
  std::ifstream file_;
  int64_t line_ = 0;
};

}  // namespace pcmoe::data
