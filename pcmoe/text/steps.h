// pcmoe/text/steps.h: what the parts of tokenizer.json have in common: sequences of steps, patterns
// and replacements.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "pcmoe/text/json.h"
#include "pcmoe/text/pattern.h"

namespace pcmoe::text {

/// What a part makes of a text of `bytes` may have this many: a few replacements that each make it
/// longer would otherwise fill the memory.
constexpr size_t MaxBytesFrom(size_t bytes) { return 64 * bytes + 4096; }

/// A part of tokenizer.json has at most this many steps, whatever the file says.
inline constexpr size_t kMaxSteps = 64;

/// The field "pattern" of `object`: {"String": ..} or {"Regex": ..}, as Split and Replace have it.
/// INVALID_ARGUMENT when it is missing, empty, or an expression that cannot be used.
absl::StatusOr<Pattern> PatternField(const Json& object);

/// The step "Replace" of normalizers and decoders. Immutable; const use is thread-safe.
struct Replacement {
  Pattern pattern;
  std::string content;

  /// From the fields "pattern" and "content"; INVALID_ARGUMENT naming what is wrong.
  static absl::StatusOr<Replacement> FromJson(const Json& json);
  /// `text` with every match replaced. Errors as Pattern::Find, and INVALID_ARGUMENT when the
  /// result would be longer than `max_bytes`.
  absl::StatusOr<std::string> Apply(std::string_view text, size_t max_bytes) const;
};

/// Appends to `steps` what the part `json` is made of: the one step that `parse(type, json)` makes
/// of it or, when its type is "Sequence", all of the field `list`, which may nest. INVALID_ARGUMENT
/// when there are more than kMaxSteps, or more than kMaxNesting levels.
template <typename Step>
absl::Status AppendSteps(const Json& json, const char* list,
                         absl::StatusOr<Step> (*parse)(const std::string& type, const Json& json),
                         std::vector<Step>& steps, int depth = 0) {
  PCMOE_ASSIGN_OR_RETURN(const std::string type, TypeOf(json));
  if (type == "Sequence") {
    const Json& parts = FieldOf(json, list);
    if (!parts.is_array() || depth >= kMaxNesting) {
      return absl::InvalidArgumentError(
          absl::StrCat("a Sequence has no list '", list, "', or nests too deep"));
    }
    for (const Json& part : parts) {
      PCMOE_RETURN_IF_ERROR(AppendSteps(part, list, parse, steps, depth + 1));
    }
    return absl::OkStatus();
  }
  if (steps.size() >= kMaxSteps) return absl::InvalidArgumentError("there are too many steps");
  PCMOE_ASSIGN_OR_RETURN(Step step, parse(type, json));
  steps.push_back(std::move(step));
  return absl::OkStatus();
}

}  // namespace pcmoe::text
