// pcmoe/text/pre_tokenizer.h: the "pre_tokenizer" part of tokenizer.json: text to words.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "pcmoe/text/json.h"
#include "pcmoe/text/pattern.h"
#include "pcmoe/text/pieces.h"

namespace pcmoe::text {

/// The printable stand-in of a byte in byte-level BPE (GPT-2's table).
char32_t ByteToPrintable(uint8_t byte);
/// The byte behind a stand-in; -1 when `code_point` is none.
int PrintableToByte(char32_t code_point);

/// Immutable; const use is thread-safe. Does nothing when the file has none.
class PreTokenizer {
 public:
  PreTokenizer() = default;
  /// From the JSON value (null for none). Reads ByteLevel, Split, Metaspace, Digits, Punctuation,
  /// WhitespaceSplit and Sequence; INVALID_ARGUMENT naming any other type.
  static absl::StatusOr<PreTokenizer> FromJson(const Json& json);

  /// Splits every piece that is not an added token. Errors as Pattern::Find.
  absl::Status Apply(PieceText& pieces) const;
  bool empty() const { return steps_.empty(); }

 private:
  struct SplitStep {
    Pattern pattern;
    SplitBehavior behavior;
    bool invert;
  };
  struct ByteLevelStep {
    bool add_prefix_space;
    std::optional<Pattern> pattern;
  };
  enum class Prepend { kAlways, kFirst, kNever };
  struct MetaspaceStep {
    std::string replacement;
    Prepend prepend;
    std::optional<Pattern> pattern;  // Set when it splits.
  };
  using Step = std::variant<SplitStep, ByteLevelStep, MetaspaceStep>;

  static absl::StatusOr<Step> StepFromJson(const std::string& type, const Json& json);
  static absl::StatusOr<Step> SplitFromJson(const Json& json);
  static absl::StatusOr<Step> MetaspaceFromJson(const Json& json);
  static absl::StatusOr<Step> ByteLevelFromJson(const Json& json);

  static absl::Status Run(const ByteLevelStep& step, PieceText& pieces);
  static absl::Status Run(const MetaspaceStep& step, PieceText& pieces);

  std::vector<Step> steps_;
};

}  // namespace pcmoe::text
