// pcmoe/report/json_access.cc: see json_access.h.
#include "pcmoe/report/json_access.h"

#include "pcmoe/base/file.h"

namespace pcmoe::report {
namespace {

constexpr uint64_t kMaxBytes = uint64_t{64} << 20;

}  // namespace

const Json& At(const Json& json, const char* key) {
  static const Json null;
  if (!json.is_object()) return null;
  const auto found = json.find(key);
  return found == json.end() ? null : *found;
}

double NumberAt(const Json& json, const char* key, double otherwise) {
  const Json& value = At(json, key);
  return value.is_number() ? value.get<double>() : otherwise;
}

std::string TextAt(const Json& json, const char* key, const std::string& otherwise) {
  const Json& value = At(json, key);
  return value.is_string() ? value.get<std::string>() : otherwise;
}

std::vector<std::string> TextsAt(const Json& json, const char* key) {
  std::vector<std::string> texts;
  const Json& list = At(json, key);
  if (!list.is_array()) return texts;
  for (const Json& one : list) {
    if (one.is_string()) texts.push_back(one.get<std::string>());
  }
  return texts;
}

absl::StatusOr<Json> ReadObject(const std::filesystem::path& path) {
  PCMOE_ASSIGN_OR_RETURN(const std::string text, base::ReadFile(path, kMaxBytes));
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(path.string(), ": is not one JSON object"));
  }
  return json;
}

}  // namespace pcmoe::report
