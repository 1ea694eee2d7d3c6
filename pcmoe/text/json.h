// pcmoe/text/json.h: reading fields of tokenizer.json with errors that name the field.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "pcmoe/base/status.h"

namespace pcmoe::text {

using Json = nlohmann::json;

/// The field `key` of `object`; a null value when it is missing.
const Json& FieldOf(const Json& object, const char* key);

/// A string, INVALID_ARGUMENT naming `key` when it is missing or something else.
absl::StatusOr<std::string> StringField(const Json& object, const char* key);

/// A boolean; `fallback` when missing or null.
absl::StatusOr<bool> BoolField(const Json& object, const char* key, bool fallback);

/// A whole number in [low, high], INVALID_ARGUMENT naming `key` otherwise.
absl::StatusOr<int64_t> IntegerField(const Json& object, const char* key, int64_t low,
                                     int64_t high);

/// The field "type", which every part of tokenizer.json has.
absl::StatusOr<std::string> TypeOf(const Json& object);

/// Sequences within sequences stop here, so that no file can exhaust the stack.
inline constexpr int kMaxNesting = 8;

}  // namespace pcmoe::text
