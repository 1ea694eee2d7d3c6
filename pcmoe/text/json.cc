// pcmoe/text/json.cc: see json.h.
#include "pcmoe/text/json.h"

namespace pcmoe::text {
namespace {

absl::Status Wrong(const char* key, absl::string_view wanted) {
  return absl::InvalidArgumentError(absl::StrCat("'", key, "' is not ", wanted));
}

}  // namespace

const Json& FieldOf(const Json& object, const char* key) {
  static const Json null;
  if (!object.is_object()) return null;
  const auto found = object.find(key);
  return found == object.end() ? null : *found;
}

absl::StatusOr<std::string> StringField(const Json& object, const char* key) {
  const Json& field = FieldOf(object, key);
  if (!field.is_string()) return Wrong(key, "a string");
  return field.get_ref<const std::string&>();
}

absl::StatusOr<bool> BoolField(const Json& object, const char* key, bool fallback) {
  const Json& field = FieldOf(object, key);
  if (field.is_null()) return fallback;
  if (!field.is_boolean()) return Wrong(key, "true or false");
  return field.get<bool>();
}

absl::StatusOr<int64_t> IntegerField(const Json& object, const char* key, int64_t low,
                                     int64_t high) {
  const Json& field = FieldOf(object, key);
  const absl::Status wrong = Wrong(key, absl::StrCat("a whole number in ", low, "..", high));
  if (!field.is_number_integer()) return wrong;
  if (field.is_number_unsigned() && field.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) {
    return wrong;
  }
  const int64_t value = field.get<int64_t>();
  if (value < low || value > high) return wrong;
  return value;
}

absl::StatusOr<std::string> TypeOf(const Json& object) { return StringField(object, "type"); }

}  // namespace pcmoe::text
