// pcmoe/report/json_access.h: reading JSON that others wrote: nothing is trusted, nothing throws.
#pragma once

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "pcmoe/base/status.h"

namespace pcmoe::report {

using Json = nlohmann::ordered_json;

/// json[key], or null when `json` is no object or has no such key.
const Json& At(const Json& json, const char* key);
/// The number there, or `otherwise`.
double NumberAt(const Json& json, const char* key, double otherwise = std::nan(""));
/// The string there, or `otherwise`.
std::string TextAt(const Json& json, const char* key, const std::string& otherwise = "");
/// The strings of the list there.
std::vector<std::string> TextsAt(const Json& json, const char* key);

/// The object in the file at `path`. NOT_FOUND, or INVALID_ARGUMENT when it is no JSON object.
absl::StatusOr<Json> ReadObject(const std::filesystem::path& path);

}  // namespace pcmoe::report
