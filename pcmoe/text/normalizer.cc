// pcmoe/text/normalizer.cc: see normalizer.h.
#include "pcmoe/text/normalizer.h"

namespace pcmoe::text {

absl::StatusOr<Normalizer> Normalizer::FromJson(const Json& json) {
  Normalizer result;
  if (!json.is_null()) {
    PCMOE_RETURN_IF_ERROR(
        AppendSteps(json, "normalizers", &Normalizer::StepFromJson, result.steps_));
  }
  return result;
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
  if (type == "Replace") return Replacement::FromJson(json);
  return absl::InvalidArgumentError(absl::StrCat("the type '", type, "' is not supported"));
}

absl::StatusOr<std::string> Normalizer::ApplyStep(const Step& step, std::string_view text,
                                                  size_t max_bytes) {
  if (const auto* form = std::get_if<NormalForm>(&step)) return Normalize(text, *form);
  if (const auto* prepend = std::get_if<PrependText>(&step)) {
    return text.empty() ? std::string() : prepend->text + std::string(text);
  }
  return std::get<Replacement>(step).Apply(text, max_bytes);
}

absl::StatusOr<std::string> Normalizer::Apply(std::string_view text) const {
  std::string out(text);
  for (const Step& step : steps_) {
    PCMOE_ASSIGN_OR_RETURN(out, ApplyStep(step, out, MaxBytesFrom(text.size())));
    if (out.size() > MaxBytesFrom(text.size())) {
      return absl::InvalidArgumentError("the tokenizer's normalizer makes the text too long");
    }
  }
  return out;
}

}  // namespace pcmoe::text
