// pcmoe/text/tokenizer.h: text to token ids and back, as a Hugging Face tokenizer.json says.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pcmoe/base/status.h"

namespace pcmoe::text {

/// A BPE tokenizer, byte-level (GPT-2, Llama 3, Qwen2, OLMoE) or with byte fallback (Mixtral,
/// Llama 2). Ids equal those of Hugging Face's `tokenizers`; "truncation" and "padding" of the file
/// are ignored. Immutable: const use is thread-safe. Movable.
class Tokenizer {
 public:
  /// Reads a tokenizer.json of at most 64 MiB. INVALID_ARGUMENT naming the file and the part of it
  /// that cannot be used, NOT_FOUND when it is missing.
  static absl::StatusOr<Tokenizer> Load(const std::filesystem::path& path);
  /// The same from memory; `origin` is what errors call it.
  static absl::StatusOr<Tokenizer> FromJson(std::string_view json, std::string_view origin);

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  /// The ids of `utf8`, at most 1 GiB; with those of the file's post-processor (BOS, EOS) when
  /// `add_special_tokens`. Special tokens written in the text become their ids either way.
  /// INVALID_ARGUMENT naming the byte offset when the text is not valid UTF-8.
  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view utf8,
                                              bool add_special_tokens = false) const;

  /// The text of `ids`, without special tokens when `skip_special_tokens`. Bytes that are not valid
  /// UTF-8 together become U+FFFD. INVALID_ARGUMENT when an id is no token's.
  absl::StatusOr<std::string> Decode(std::span<const int32_t> ids,
                                     bool skip_special_tokens = false) const;

  /// One more than the largest id: what an embedding must have at least.
  int32_t vocab_size() const;
  /// The id of exactly this token, added tokens included.
  std::optional<int32_t> TokenToId(std::string_view token) const;
  /// The token of an id as the file spells it.
  std::optional<std::string> IdToToken(int32_t id) const;
  /// Whether the id is an added token marked special.
  bool IsSpecial(int32_t id) const;

  /// The first of the usual names that is a special token: for the beginning "<s>",
  /// "<|begin_of_text|>", "<bos>"; for the end "</s>", "<|end_of_text|>", "<|endoftext|>", "<eos>",
  /// "<|im_end|>". tokenizer.json has no field for them; a model's config.json goes first.
  std::optional<int32_t> BosId() const;
  std::optional<int32_t> EosId() const;

 private:
  struct Parts;
  explicit Tokenizer(std::unique_ptr<const Parts> parts);
  std::unique_ptr<const Parts> parts_;
};

}  // namespace pcmoe::text
