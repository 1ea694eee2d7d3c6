// pcmoe/data/jsonl.cc: see jsonl.h.
#include "pcmoe/data/jsonl.h"

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <system_error>

#include "pcmoe/text/unicode.h"

namespace pcmoe::data {
namespace {

constexpr const char* kByteOrderMark = "\xEF\xBB\xBF";

}  // namespace

absl::StatusOr<JsonlReader> JsonlReader::Open(const std::filesystem::path& path,
                                              JsonlOptions options) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) {
    return absl::NotFoundError(absl::StrCat(path.string(), ": there is no such file to read"));
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    return absl::InvalidArgumentError(
        absl::StrCat(path.string(), ": cannot open: ", std::generic_category().message(errno)));
  }
  return JsonlReader(path, std::move(options), std::move(file));
}

absl::Status JsonlReader::Error(const std::string& what) const {
  return absl::InvalidArgumentError(absl::StrCat(path_.string(), ":", line_, ": ", what));
}

// False at the end of the file. Reads in pieces, as getline would take a line of any size.
absl::StatusOr<bool> JsonlReader::ReadLine(std::string& line) {
  line.clear();
  ++line_;
  char piece[1 << 14];
  while (true) {
    file_.getline(piece, sizeof(piece));
    const auto count = static_cast<size_t>(file_.gcount());
    const bool full = file_.fail() && !file_.eof() && !file_.bad() && count == sizeof(piece) - 1;
    // What getline counts includes the line's end, which it does not store.
    const bool ended = !file_.fail() && !file_.eof();
    line.append(piece, ended ? count - 1 : count);
    if (file_.bad()) {
      return absl::DataLossError(absl::StrCat(path_.string(), ": cannot read line ", line_));
    }
    if (line.size() > options_.max_line_bytes) {
      return Error(absl::StrCat("the line has more than ", options_.max_line_bytes, " bytes"));
    }
    if (full) {
      file_.clear();
      continue;
    }
    return ended || !line.empty();
  }
}

absl::StatusOr<nlohmann::json> JsonlReader::Parse(const std::string& line) const {
  if (const size_t bad = text::FindInvalidUtf8(line); bad != std::string::npos) {
    return Error(absl::StrCat("byte ", bad, " is not valid UTF-8; convert the file first"));
  }
  if (line.starts_with(kByteOrderMark)) {
    return Error("a byte order mark where a JSON object should begin; remove it");
  }
  nlohmann::json json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded() || !json.is_object()) {
    return Error("the line is not a JSON object; every line must be one");
  }
  return json;
}

absl::StatusOr<std::string> JsonlReader::StringAt(const nlohmann::json& json,
                                                  const std::string& key) const {
  const auto found = json.find(key);
  if (found == json.end()) {
    return Error(absl::StrCat("the object has no key '", key, "'; name the right one"));
  }
  if (!found->is_string()) {
    return Error(absl::StrCat("the value of '", key, "' is not a string"));
  }
  return found->get<std::string>();
}

// The next line with something in it.
absl::StatusOr<bool> JsonlReader::NextLine(std::string& line) {
  while (true) {
    PCMOE_ASSIGN_OR_RETURN(const bool more, ReadLine(line));
    if (!more) return false;
    if (line_ == 1 && line.starts_with(kByteOrderMark)) line.erase(0, std::strlen(kByteOrderMark));
    if (line.find_first_not_of(" \t\r") != std::string::npos) return true;
  }
}

absl::StatusOr<std::optional<std::string>> JsonlReader::Next() {
  std::string line;
  PCMOE_ASSIGN_OR_RETURN(const bool more, NextLine(line));
  if (!more) return std::nullopt;
  PCMOE_ASSIGN_OR_RETURN(const nlohmann::json json, Parse(line));
  PCMOE_ASSIGN_OR_RETURN(std::string text, StringAt(json, options_.column));
  return text;
}

absl::StatusOr<std::optional<Document>> JsonlReader::NextDocument() {
  std::string line;
  PCMOE_ASSIGN_OR_RETURN(const bool more, NextLine(line));
  if (!more) return std::nullopt;
  PCMOE_ASSIGN_OR_RETURN(const nlohmann::json json, Parse(line));
  Document document;
  if (json.contains("prompt") && json.contains("completion")) {
    PCMOE_ASSIGN_OR_RETURN(document.prompt, StringAt(json, "prompt"));
    PCMOE_ASSIGN_OR_RETURN(document.completion, StringAt(json, "completion"));
    return document;
  }
  PCMOE_ASSIGN_OR_RETURN(document.prompt, StringAt(json, options_.column));
  const auto label = options_.label_column.empty() ? json.end() : json.find(options_.label_column);
  if (label == json.end()) return document;
  if (label->is_string()) {
    document.completion = label->get<std::string>();
  } else if (label->is_number_integer()) {
    document.completion = label->dump();
  } else {
    return Error(absl::StrCat("the value of '", options_.label_column,
                              "' is neither a string nor a whole number"));
  }
  if (document.completion->empty()) {
    return Error(absl::StrCat("the value of '", options_.label_column, "' is empty"));
  }
  document.is_label = true;
  document.prompt += options_.label_separator;
  return document;
}

}  // namespace pcmoe::data
