// pcmoe/federation/strict_json.cc: see strict_json.h.
#include "pcmoe/federation/strict_json.h"

#include <algorithm>
#include <set>
#include <vector>

#include "pcmoe/base/edit_distance.h"

namespace pcmoe::federation {
namespace {

constexpr int kMaxDepth = 16;

// Keys come from files: a sentence must not carry a megabyte or control characters of one.
std::string Printable(std::string_view key) {
  std::string text;
  for (const char c : key.substr(0, 40)) text.push_back(c >= ' ' && c <= '~' ? c : '?');
  return text;
}

}  // namespace

std::string_view Suggest(std::string_view word, std::initializer_list<std::string_view> known) {
  if (word.size() > 64) return "";
  std::string_view best;
  size_t best_distance = std::max<size_t>(1, word.size() / 3) + 1;
  for (const std::string_view candidate : known) {
    const size_t distance = base::EditDistance(word, candidate);
    if (distance >= best_distance) continue;
    best = candidate;
    best_distance = distance;
  }
  return best;
}

absl::StatusOr<nlohmann::json> ParseStrictJson(std::string_view text) {
  using Json = nlohmann::json;
  std::vector<std::set<std::string>> open_objects;
  std::string problem;
  const auto callback = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > kMaxDepth) problem = "is nested too deeply";
    if (event == Json::parse_event_t::object_start) open_objects.emplace_back();
    if (event == Json::parse_event_t::object_end && !open_objects.empty()) open_objects.pop_back();
    if (event == Json::parse_event_t::key && !open_objects.empty() &&
        !open_objects.back().insert(parsed.get_ref<const std::string&>()).second) {
      problem = "repeats the key '" + Printable(parsed.get_ref<const std::string&>()) + "'";
    }
    return problem.empty();
  };
  Json json = Json::parse(text.begin(), text.end(), callback, /*allow_exceptions=*/false);
  if (!problem.empty()) return absl::InvalidArgumentError("the JSON " + problem);
  if (json.is_discarded()) return absl::InvalidArgumentError("this is not valid JSON in UTF-8");
  return json;
}

ObjectReader::ObjectReader(const nlohmann::json& json, std::string path,
                           std::initializer_list<std::string_view> keys)
    : json_(json), path_(std::move(path)) {
  if (!json_.is_object()) {
    status_ = absl::InvalidArgumentError(path_ + " must be a JSON object");
    return;
  }
  for (const auto& [key, value] : json_.items()) {
    if (std::ranges::find(keys, key) != keys.end()) continue;
    const std::string_view meant = Suggest(key, keys);
    Fail(Printable(key), meant.empty() ? "is not a known key"
                                       : absl::StrCat("is not a known key; did you mean '",
                                                      std::string(meant), "'?"));
    return;
  }
}

bool ObjectReader::Has(std::string_view key) const {
  return json_.is_object() && json_.contains(key);
}

void ObjectReader::Fail(std::string_view key, absl::string_view what) {
  if (!status_.ok()) return;
  status_ = absl::InvalidArgumentError(absl::StrCat(path_, ".", std::string(key), " ", what));
}

const nlohmann::json& ObjectReader::Any(std::string_view key) {
  static const nlohmann::json kNull;
  if (Has(key)) return json_.find(key).value();
  Fail(key, "is missing");
  return kNull;
}

std::string ObjectReader::String(std::string_view key) {
  const nlohmann::json& value = Any(key);
  if (value.is_string()) return value.get<std::string>();
  Fail(key, "must be a string");
  return "";
}

uint64_t ObjectReader::Integer(std::string_view key, uint64_t low, uint64_t high) {
  const nlohmann::json& value = Any(key);
  if (value.is_number_unsigned()) {
    const auto number = value.get<uint64_t>();
    if (number >= low && number <= high) return number;
  }
  Fail(key, absl::StrCat("must be a whole number from ", low, " to ", high));
  return low;
}

}  // namespace pcmoe::federation
