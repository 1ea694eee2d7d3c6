// pcmoe/text/decoder.h: the "decoder" part of tokenizer.json: tokens to text.
#pragma once

#include <cstddef>
#include <string>
#include <variant>
#include <vector>

#include "pcmoe/text/json.h"
#include "pcmoe/text/steps.h"

namespace pcmoe::text {

/// Immutable; const use is thread-safe.
class Decoder {
 public:
  Decoder() = default;
  /// From the JSON value (null for none). Reads ByteLevel, ByteFallback, Fuse, Replace, Strip,
  /// Metaspace and Sequence; INVALID_ARGUMENT naming any other type.
  static absl::StatusOr<Decoder> FromJson(const Json& json);

  /// The text of `tokens`, valid UTF-8: broken bytes become U+FFFD. Without steps tokens are joined
  /// by spaces, as Hugging Face's tokenizers does. Errors as Pattern::Find, or when a replacement
  /// makes the text longer than MaxBytesFrom its tokens.
  absl::StatusOr<std::string> Apply(std::vector<std::string> tokens) const;

 private:
  struct ByteLevel {};
  struct ByteFallback {};
  struct Fuse {};
  struct Strip {
    std::string content;  // One character.
    size_t start;
    size_t stop;
  };
  struct Metaspace {
    std::string replacement;
    bool drops_first;
  };
  using Step = std::variant<ByteLevel, ByteFallback, Fuse, Replacement, Strip, Metaspace>;
  using Tokens = std::vector<std::string>;
  static absl::StatusOr<Step> StepFromJson(const std::string& type, const Json& json);
  static absl::StatusOr<Tokens> ApplyStep(const Step& step, Tokens tokens, size_t max_bytes);
  static Tokens Join(const ByteLevel&, const Tokens& tokens);
  static Tokens Join(const ByteFallback&, Tokens tokens);
  static std::string Change(const Strip& step, std::string_view token);
  static std::string Change(const Metaspace& step, std::string_view token, bool first);

  std::vector<Step> steps_;
};

}  // namespace pcmoe::text
