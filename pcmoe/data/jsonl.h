// pcmoe/data/jsonl.h: documents from JSON Lines files, one at a time.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "pcmoe/base/status.h"

namespace pcmoe::data {

/// What a JSONL file looks like.
struct JsonlOptions {
  std::string column = "text";  ///< The key whose string is the document.
  /// The key of a row's label, a string or a whole number; rows without it are plain text. Empty:
  /// labels are not looked at.
  std::string label_column = "label";
  std::string label_separator = "\n";            ///< Between a text and its label.
  uint64_t max_line_bytes = uint64_t{64} << 20;  ///< Longer lines are an error.
};

/// One row of a file. Rows come as {"text"}, {"text", "label"} or {"prompt", "completion"}.
struct Document {
  std::string prompt;  ///< The whole text of a plain row; else what comes before.
  std::optional<std::string> completion;  ///< What is to be predicted: a label or a completion.
  bool is_label = false;                  ///< The completion is one of a few words.
};

/// Reads a file line by line, so that its size does not matter. Lines of white space are skipped,
/// so is a byte order mark at the very beginning; "\r\n" ends a line too. Not thread-safe. Movable.
class JsonlReader {
 public:
  /// NOT_FOUND or INVALID_ARGUMENT naming the file when it cannot be opened.
  static absl::StatusOr<JsonlReader> Open(const std::filesystem::path& path,
                                          JsonlOptions options = {});

  /// The next text, labels and completions left aside; empty at the end of the file.
  /// INVALID_ARGUMENT "FILE:LINE: ..." when a line is not valid UTF-8, not a JSON object, has no
  /// such key, or holds no string there.
  absl::StatusOr<std::optional<std::string>> Next();
  /// Likewise, with what is to be predicted; the separator stands at the end of the prompt.
  absl::StatusOr<std::optional<Document>> NextDocument();

  /// Number of the line that Next() read last, from 1.
  int64_t line() const { return line_; }

 private:
  JsonlReader(std::filesystem::path path, JsonlOptions options, std::ifstream file)
      : path_(std::move(path)), options_(std::move(options)), file_(std::move(file)) {}
  absl::StatusOr<bool> ReadLine(std::string& line);
  absl::StatusOr<bool> NextLine(std::string& line);
  absl::StatusOr<nlohmann::json> Parse(const std::string& line) const;
  absl::StatusOr<std::string> StringAt(const nlohmann::json& json, const std::string& key) const;
  absl::Status Error(const std::string& what) const;

  std::filesystem::path path_;
  JsonlOptions options_;
  std::ifstream file_;
  int64_t line_ = 0;
};

}  // namespace pcmoe::data
