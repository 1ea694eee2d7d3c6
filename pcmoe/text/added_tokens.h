// pcmoe/text/added_tokens.h: tokens that are cut out of a text before the model sees it.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "pcmoe/base/status.h"

namespace pcmoe::text {

/// One entry of "added_tokens"; fields as in tokenizer.json.
struct AddedToken {
  int32_t id = -1;
  std::string content;     ///< As the file has it.
  std::string normalized;  ///< What is looked for in normalized text, when `is_normalized`.
  bool single_word = false;
  bool lstrip = false;
  bool rstrip = false;
  bool is_normalized = false;
  bool special = false;
};

/// Finds the longest of a set of tokens at every place of a text. Immutable; thread-safe.
class AddedTokenFinder {
 public:
  /// A stretch of the text: an added token, or what lies between two (token null).
  struct Stretch {
    size_t begin = 0;
    size_t end = 0;
    const AddedToken* token = nullptr;
  };

  AddedTokenFinder() = default;
  /// Looks for `content` of the tokens, or for `normalized` when asked to. `tokens` must outlive
  /// this object. RESOURCE_EXHAUSTED when they have more than 2^24 bytes together.
  static absl::StatusOr<AddedTokenFinder> Create(const std::vector<const AddedToken*>& tokens,
                                                 bool normalized);

  /// All of `text` (valid UTF-8) in stretches, leftmost longest, flags obeyed. A token with rstrip
  /// can overlap the next one, as it does in Hugging Face's tokenizers.
  std::vector<Stretch> Find(std::string_view text) const;

 private:
  struct Node {
    uint32_t first_child = 0;  // 0: none, as node 0 is the root.
    uint32_t sibling = 0;
    uint8_t byte = 0;
    const AddedToken* token = nullptr;
  };
  uint32_t ChildOf(uint32_t node, uint8_t byte) const;
  const AddedToken* LongestAt(std::string_view text, size_t at, size_t& end) const;

  std::vector<Node> nodes_;
  std::array<uint32_t, 256> roots_{};  // The root's children, as most places have none.
};

}  // namespace pcmoe::text
