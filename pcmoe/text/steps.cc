// pcmoe/text/steps.cc: see steps.h.
#include "pcmoe/text/steps.h"

namespace pcmoe::text {

absl::StatusOr<Pattern> PatternField(const Json& object) {
  const Json& pattern = FieldOf(object, "pattern");
  const bool regex = FieldOf(pattern, "Regex").is_string();
  PCMOE_ASSIGN_OR_RETURN(std::string text, StringField(pattern, regex ? "Regex" : "String"));
  if (text.empty()) {
    return absl::InvalidArgumentError("'pattern' is not a pattern that can match something");
  }
  if (regex) return Pattern::Regex(text);
  return Pattern::Literal(std::move(text));
}

absl::StatusOr<Replacement> Replacement::FromJson(const Json& json) {
  PCMOE_ASSIGN_OR_RETURN(Pattern pattern, PatternField(json));
  PCMOE_ASSIGN_OR_RETURN(std::string content, StringField(json, "content"));
  return Replacement{std::move(pattern), std::move(content)};
}

absl::StatusOr<std::string> Replacement::Apply(std::string_view text, size_t max_bytes) const {
  PCMOE_ASSIGN_OR_RETURN(const std::vector<Match> matches, pattern.Find(text));
  std::string out;
  for (const Match& match : matches) {
    out += match.is_match ? std::string_view(content)
                          : text.substr(match.begin, match.end - match.begin);
    if (out.size() > max_bytes) {
      return absl::InvalidArgumentError("a Replace of the tokenizer makes the text too long");
    }
  }
  return out;
}

}  // namespace pcmoe::text
