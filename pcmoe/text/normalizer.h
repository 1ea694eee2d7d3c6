// pcmoe/text/normalizer.h: the "normalizer" part of tokenizer.json: text to text.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "pcmoe/text/json.h"
#include "pcmoe/text/steps.h"
#include "pcmoe/text/unicode.h"

namespace pcmoe::text {

/// Immutable; const use is thread-safe. Does nothing when the file has none.
class Normalizer {
 public:
  Normalizer() = default;
  /// From the JSON value (null for none). Reads NFC, NFD, NFKC, NFKD, Prepend, Replace and
  /// Sequence; INVALID_ARGUMENT naming any other type.
  static absl::StatusOr<Normalizer> FromJson(const Json& json);

  /// `text` (valid UTF-8), normalized. Errors as Pattern::Find, or when the result would be
  /// longer than MaxBytesFrom the text.
  absl::StatusOr<std::string> Apply(std::string_view text) const;
  bool empty() const { return steps_.empty(); }

 private:
  struct PrependText {
    std::string text;
  };
  using Step = std::variant<NormalForm, PrependText, Replacement>;
  static absl::StatusOr<Step> StepFromJson(const std::string& type, const Json& json);
  static absl::StatusOr<std::string> ApplyStep(const Step& step, std::string_view text,
                                               size_t max_bytes);

  std::vector<Step> steps_;
};

}  // namespace pcmoe::text
