// pcmoe/text/normalizer.cc: see normalizer.h.
#include "pcmoe/text/normalizer.h"

namespace pcmoe::text {
namespace {

constexpr size_t kMaxSteps = 64;
// A few replacements that each double the text would otherwise fill the memory.
constexpr size_t kMaxGrowth = 64;

}  // namespace

absl::StatusOr<Normalizer> Normalizer::FromJson(const Json& json) {
  Normalizer result;
  if (!json.is_null()) PCMOE_RETURN_IF_ERROR(Append(json, 0, result.steps_));
  return result;
}

absl::Status Normalizer::Append(const Json& json, int depth, std::vector<Step>& steps) {
  PCMOE_ASSIGN_OR_RETURN(const std::string type, TypeOf(json));
  if (type == "Sequence") {
    const Json& parts = FieldOf(json, "normalizers");
    if (!parts.is_array() || depth >= kMaxNesting) {
      return absl::InvalidArgumentError("a Sequence has no list 'normalizers', or nests too deep");
    }
    for (const Json& part : parts) PCMOE_RETURN_IF_ERROR(Append(part, depth + 1, steps));
    return absl::OkStatus();
  }
  if (steps.size() >= kMaxSteps) return absl::InvalidArgumentError("there are too many steps");
  PCMOE_ASSIGN_OR_RETURN(Step step, StepFromJson(type, json));
  steps.push_back(std::move(step));
  return absl::OkStatus();
}

absl::StatusOr<Normalizer::Step> Normalizer::StepFromJson(const std::string& type,
                                                          const Json& json) {
  if (type == "NFC") return Step(NormalForm::kNfc);
  if (type == "NFD") return Step(NormalForm::kNfd);
  if (type == "NFKC") return Step(NormalForm::kNfkc);
  if (type == "NFKD") return Step(NormalForm::kNfkd);
  if (type == "Prepend") {
    PCMOE_ASSIGN_OR_RETURN(std::string text, StringField(json, "prepend"));
    return Step(PrependText{std::move(text)});
  }
  if (type == "Replace") {
    PCMOE_ASSIGN_OR_RETURN(PatternText text, PatternField(json));
    PCMOE_ASSIGN_OR_RETURN(std::string content, StringField(json, "content"));
    if (!text.regex) {
      return Step(ReplaceText{Pattern::Literal(std::move(text.text)), std::move(content)});
    }
    PCMOE_ASSIGN_OR_RETURN(Pattern pattern, Pattern::Regex(text.text));
    return Step(ReplaceText{std::move(pattern), std::move(content)});
  }
  return absl::InvalidArgumentError(absl::StrCat("the type '", type, "' is not supported"));
}

absl::StatusOr<std::string> Normalizer::ApplyStep(const Step& step, std::string_view text) {
  if (const auto* form = std::get_if<NormalForm>(&step)) return Normalize(text, *form);
  if (const auto* prepend = std::get_if<PrependText>(&step)) {
    return text.empty() ? std::string() : prepend->text + std::string(text);
  }
  const auto& replace = std::get<ReplaceText>(step);
  PCMOE_ASSIGN_OR_RETURN(const std::vector<Match> matches, replace.pattern.Find(text));
  std::string out;
  for (const Match& match : matches) {
    out += match.is_match ? std::string_view(replace.content)
                          : text.substr(match.begin, match.end - match.begin);
    if (out.size() > kMaxGrowth * text.size()) break;
  }
  return out;
}

absl::StatusOr<std::string> Normalizer::Apply(std::string_view text) const {
  std::string out(text);
  for (const Step& step : steps_) {
    PCMOE_ASSIGN_OR_RETURN(out, ApplyStep(step, out));
    if (out.size() > kMaxGrowth * text.size() + 4096) {
      return absl::InvalidArgumentError("the tokenizer's normalizer makes the text too long");
    }
  }
  return out;
}

}  // namespace pcmoe::text
