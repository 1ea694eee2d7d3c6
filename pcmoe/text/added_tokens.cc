// pcmoe/text/added_tokens.cc: see added_tokens.h.
#include "pcmoe/text/added_tokens.h"

#include <algorithm>

#include "pcmoe/text/unicode.h"

namespace pcmoe::text {
namespace {

constexpr size_t kMaxNodes = size_t{1} << 24;

// The start of the character before `at`; at > 0.
size_t CharacterBefore(std::string_view text, size_t at) {
  do {
    --at;
  } while (at > 0 && (static_cast<uint8_t>(text[at]) & 0xC0) == 0x80);
  return at;
}

bool IsSingleWord(std::string_view text, size_t begin, size_t end) {
  if (begin > 0) {
    size_t at = CharacterBefore(text, begin);
    if (IsWordCharacter(NextCodePoint(text, at))) return false;
  }
  return end == text.size() || !IsWordCharacter(NextCodePoint(text, end));
}

size_t SkipSpacesBack(std::string_view text, size_t begin, size_t floor) {
  while (begin > floor) {
    const size_t before = CharacterBefore(text, begin);
    size_t at = before;
    if (!IsWhitespace(NextCodePoint(text, at))) break;
    begin = before;
  }
  return begin;
}

size_t SkipSpaces(std::string_view text, size_t end) {
  while (end < text.size()) {
    size_t at = end;
    if (!IsWhitespace(NextCodePoint(text, at))) break;
    end = at;
  }
  return end;
}

}  // namespace

absl::StatusOr<AddedTokenFinder> AddedTokenFinder::Create(
    const std::vector<const AddedToken*>& tokens, bool normalized) {
  AddedTokenFinder finder;
  finder.nodes_.resize(1);
  for (const AddedToken* token : tokens) {
    const std::string& text = normalized ? token->normalized : token->content;
    if (text.empty()) continue;
    uint32_t node = 0;
    for (const char c : text) {
      const auto byte = static_cast<uint8_t>(c);
      uint32_t next = finder.ChildOf(node, byte);
      if (next == 0) {
        if (finder.nodes_.size() >= kMaxNodes) {
          return absl::ResourceExhaustedError("the added tokens are too long together");
        }
        next = static_cast<uint32_t>(finder.nodes_.size());
        if (node == 0) {
          finder.nodes_.push_back({0, 0, byte, nullptr});
          finder.roots_[byte] = next;
        } else {
          finder.nodes_.push_back({0, finder.nodes_[node].first_child, byte, nullptr});
          finder.nodes_[node].first_child = next;
        }
      }
      node = next;
    }
    if (finder.nodes_[node].token == nullptr) finder.nodes_[node].token = token;
  }
  if (finder.nodes_.size() == 1) finder.nodes_.clear();
  return finder;
}

uint32_t AddedTokenFinder::ChildOf(uint32_t node, uint8_t byte) const {
  if (node == 0) return roots_[byte];
  uint32_t child = nodes_[node].first_child;
  while (child != 0 && nodes_[child].byte != byte) child = nodes_[child].sibling;
  return child;
}

const AddedToken* AddedTokenFinder::LongestAt(std::string_view text, size_t at, size_t& end) const {
  const AddedToken* longest = nullptr;
  uint32_t node = 0;
  for (; at < text.size(); ++at) {
    node = ChildOf(node, static_cast<uint8_t>(text[at]));
    if (node == 0) break;
    if (nodes_[node].token != nullptr) {
      longest = nodes_[node].token;
      end = at + 1;
    }
  }
  return longest;
}

std::vector<AddedTokenFinder::Stretch> AddedTokenFinder::Find(std::string_view text) const {
  std::vector<Stretch> out;
  size_t done = 0;
  for (size_t at = 0; !nodes_.empty() && at < text.size();) {
    size_t match_end = 0;
    const AddedToken* token = LongestAt(text, at, match_end);
    if (token == nullptr) {
      ++at;
      continue;
    }
    size_t begin = at;
    size_t end = match_end;
    at = match_end;
    if (token->single_word && !IsSingleWord(text, begin, end)) continue;
    if (token->lstrip) begin = std::max(SkipSpacesBack(text, begin, done), done);
    if (token->rstrip) end = SkipSpaces(text, end);
    if (done < begin) out.push_back({done, begin, nullptr});
    out.push_back({begin, end, token});
    done = end;
  }
  if (done < text.size()) out.push_back({done, text.size(), nullptr});
  return out;
}

}  // namespace pcmoe::text
