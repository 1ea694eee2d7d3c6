// pcmoe/federation/strict_json.h: JSON objects of which every key must be known, once, and right.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "pcmoe/base/status.h"

namespace pcmoe::federation {

/// Parses `text`; INVALID_ARGUMENT when it is not JSON, not UTF-8, deeper than 16 or repeats a key.
absl::StatusOr<nlohmann::json> ParseStrictJson(std::string_view text);

/// Reads the members of one object. After the first error the others keep their defaults; `status`
/// has the first error. `path` is what sentences call the object ("limits").
class ObjectReader {
 public:
  /// `keys` are all keys that may be there. `json` must outlive the reader.
  ObjectReader(const nlohmann::json& json, std::string path,
               std::initializer_list<std::string_view> keys);

  std::string String(std::string_view key);
  /// An integer from `low` to `high`.
  uint64_t Integer(std::string_view key, uint64_t low, uint64_t high);
  /// The member, whatever its type; JSON null (and an error) when missing.
  const nlohmann::json& Any(std::string_view key);
  bool Has(std::string_view key) const;
  void Fail(std::string_view key, absl::string_view what);
  const absl::Status& status() const { return status_; }

 private:
  const nlohmann::json& json_;
  const std::string path_;
  absl::Status status_;
};

/// The member of `known` that is nearest to `word`, or "" when none is near enough to be meant.
std::string_view Suggest(std::string_view word, std::initializer_list<std::string_view> known);

}  // namespace pcmoe::federation
