// pcmoe/text/bpe.cc: see bpe.h.
#include "pcmoe/text/bpe.h"

#include <algorithm>

#include "absl/hash/hash.h"
#include "absl/strings/str_format.h"
#include "pcmoe/text/unicode.h"

namespace pcmoe::text {
namespace {

constexpr size_t kCacheSlots = size_t{1} << 14;
constexpr size_t kLongestCachedWord = 48;
constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581, SentencePiece's space.

size_t CharacterLength(std::string_view text, size_t at) {
  size_t end = at;
  NextCodePoint(text, end);
  return end - at;
}

// The last character of `text[0, end)`; end > 0.
std::string_view CharacterBefore(std::string_view text, size_t end) {
  size_t at = end - 1;
  while (at > 0 && (static_cast<uint8_t>(text[at]) & 0xC0) == 0x80) --at;
  return text.substr(at, end - at);
}

}  // namespace

BpeScratch::BpeScratch() : cache_(kCacheSlots) {}

uint64_t Bpe::PairKey(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

absl::StatusOr<Bpe> Bpe::Create(Vocabulary vocabulary, const Merges& merges, BpeOptions options) {
  Bpe bpe;
  int32_t bound = 0;
  for (const auto& [token, id] : vocabulary) {
    if (id < 0 || id >= kMaxId) {
      return absl::InvalidArgumentError(
          absl::StrCat("the vocabulary has the id ", id, "; ids are 0..", kMaxId - 1));
    }
    bound = std::max(bound, id + 1);
  }
  bpe.tokens_.resize(bound);
  bpe.ids_.reserve(vocabulary.size());
  std::vector<bool> taken(bound);
  for (auto& [token, id] : vocabulary) {
    if (taken[id]) {
      return absl::InvalidArgumentError(absl::StrCat("the vocabulary has the id ", id, " twice"));
    }
    taken[id] = true;
    bpe.tokens_[id] = std::move(token);
    bpe.ids_.emplace(bpe.tokens_[id], id);
  }
  bpe.options_ = std::move(options);
  for (int byte = 0; byte < 256; ++byte) {
    bpe.byte_ids_[byte] = bpe.TokenToId(absl::StrFormat("<0x%02X>", byte));
  }
  for (char32_t c = 0; c < bpe.short_ids_.size(); ++c) {
    std::string text;
    AppendUtf8(c, text);
    bpe.short_ids_[c] = bpe.TokenToId(text);
  }
  if (bpe.options_.has_unk) {
    bpe.unk_id_ = bpe.TokenToId(bpe.options_.unk_token);
    if (bpe.unk_id_ < 0) {
      return absl::InvalidArgumentError("the token 'unk_token' is not in the vocabulary");
    }
  }
  PCMOE_RETURN_IF_ERROR(bpe.AddMerges(merges));
  bpe.FindCuts(merges);
  return bpe;
}

absl::Status Bpe::AddMerges(const Merges& merges) {
  const size_t prefix = options_.continuing_subword_prefix.size();
  merges_.reserve(merges.size());
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const auto& [left, right] = merges[rank];
    const int32_t left_id = TokenToId(left);
    const int32_t right_id = TokenToId(right);
    const int32_t merged =
        right.size() < prefix ? -1 : TokenToId(absl::StrCat(left, right.substr(prefix)));
    if (left_id < 0 || right_id < 0 || merged < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("the merge ", rank, " has a part or a result outside of the vocabulary"));
    }
    merges_[PairKey(left_id, right_id)] = {static_cast<uint32_t>(rank), merged};
  }
  return absl::OkStatus();
}

// Before "▁" the text can be cut wherever no merged token joins the character before it to a "▁".
void Bpe::FindCuts(const Merges& merges) {
  // Where characters can vanish, those beside a cut are not those that merge.
  const bool keeps_all =
      options_.has_unk || (options_.byte_fallback &&
                           std::find(byte_ids_.begin(), byte_ids_.end(), -1) == byte_ids_.end());
  can_cut_ = keeps_all && !options_.ignore_merges && options_.continuing_subword_prefix.empty() &&
             options_.end_of_word_suffix.empty() && TokenToId(kSpaceMark) >= 0;
  const auto is_special = [&](const std::string& part) {
    const int32_t id = TokenToId(part);
    return id == unk_id_ || std::find(byte_ids_.begin(), byte_ids_.end(), id) != byte_ids_.end();
  };
  for (const auto& [left, right] : merges) {
    // A byte or unknown token stands for a character that its own text does not show.
    if (is_special(left) || is_special(right)) can_cut_ = false;
    if (!can_cut_) return;
    const std::string& token = tokens_[TokenToId(absl::StrCat(left, right))];
    for (size_t at = token.find(kSpaceMark, 1); at != token.npos;
         at = token.find(kSpaceMark, at + 1)) {
      joined_to_space_[CharacterBefore(token, at)] = true;
    }
  }
}

int32_t Bpe::TokenToId(std::string_view token) const {
  const auto found = ids_.find(token);
  return found == ids_.end() ? -1 : found->second;
}

const std::string* Bpe::IdToToken(int32_t id) const {
  if (id < 0 || id >= id_bound()) return nullptr;
  const std::string& token = tokens_[id];
  return token.empty() && TokenToId(token) != id ? nullptr : &token;
}

void Bpe::Encode(std::string_view word, BpeScratch& scratch, std::vector<int32_t>& ids) const {
  if (word.empty()) return;
  if (word.size() > kLongestCachedWord) return EncodeUncached(word, scratch, ids);
  auto& slot = scratch.cache_[absl::HashOf(word) % kCacheSlots];
  if (slot.word != word) {
    slot.word.assign(word);
    slot.ids.clear();
    EncodeUncached(word, scratch, slot.ids);
  }
  ids.insert(ids.end(), slot.ids.begin(), slot.ids.end());
}

void Bpe::EncodeUncut(std::string_view text, BpeScratch& scratch, std::vector<int32_t>& ids) const {
  size_t begin = 0;
  if (can_cut_) {
    for (size_t at = text.find(kSpaceMark, 1); at != text.npos;
         at = text.find(kSpaceMark, at + 1)) {
      if (joined_to_space_.contains(CharacterBefore(text, at))) continue;
      Encode(text.substr(begin, at - begin), scratch, ids);
      begin = at;
    }
  }
  Encode(text.substr(begin), scratch, ids);
}

void Bpe::EncodeUncached(std::string_view word, BpeScratch& scratch,
                         std::vector<int32_t>& ids) const {
  if (options_.ignore_merges) {
    if (const int32_t id = TokenToId(word); id >= 0) {
      ids.push_back(id);
      return;
    }
  }
  AppendSymbols(word, scratch);
  MergeAll(scratch);
  for (const auto& symbol : scratch.symbols_) {
    if (symbol.alive) ids.push_back(symbol.id);
  }
}

bool Bpe::AppendBytes(std::string_view text, BpeScratch& scratch) const {
  for (const char c : text) {
    if (byte_ids_[static_cast<uint8_t>(c)] < 0) return false;
  }
  for (const char c : text) {
    scratch.symbols_.push_back({byte_ids_[static_cast<uint8_t>(c)], 0, 0, true});
  }
  return true;
}

void Bpe::AppendSymbols(std::string_view word, BpeScratch& scratch) const {
  auto& symbols = scratch.symbols_;
  symbols.clear();
  const bool decorated =
      !options_.continuing_subword_prefix.empty() || !options_.end_of_word_suffix.empty();
  // An unknown token waits here: the next one may be fused with it. Bytes do not make it come out
  // (Hugging Face's tokenizers has that order, and ids must agree).
  bool waiting = false;
  const auto flush = [&] {
    if (waiting) symbols.push_back({unk_id_, 0, 0, true});
    waiting = false;
  };
  std::string decoration;
  for (size_t at = 0; at < word.size();) {
    const size_t length = CharacterLength(word, at);
    std::string_view text = word.substr(at, length);
    if (decorated) {
      decoration = at == 0 ? "" : options_.continuing_subword_prefix;
      decoration += text;
      if (at + length == word.size()) decoration += options_.end_of_word_suffix;
      text = decoration;
    }
    at += length;
    size_t ignored = 0;
    const char32_t c = text.size() <= 2 ? NextCodePoint(text, ignored) : U'\uFFFD';
    const bool is_short = !decorated && c < short_ids_.size();
    const int32_t id = is_short ? short_ids_[c] : TokenToId(text);
    if (id >= 0) {
      flush();
      symbols.push_back({id, 0, 0, true});
    } else if (options_.byte_fallback && AppendBytes(text, scratch)) {
      continue;
    } else if (options_.has_unk) {
      if (!options_.fuse_unk) flush();
      waiting = true;
    }
  }
  flush();
  for (size_t i = 0; i < symbols.size(); ++i) {
    symbols[i].previous = static_cast<int32_t>(i) - 1;
    symbols[i].next = i + 1 == symbols.size() ? -1 : static_cast<int32_t>(i) + 1;
  }
}

void Bpe::PushCandidate(int32_t at, BpeScratch& scratch) const {
  const auto& left = scratch.symbols_[at];
  const auto found = merges_.find(PairKey(left.id, scratch.symbols_[left.next].id));
  if (found == merges_.end()) return;
  scratch.heap_.push_back({found->second.rank, at, found->second.merged});
}

void Bpe::MergeAll(BpeScratch& scratch) const {
  auto& symbols = scratch.symbols_;
  auto& heap = scratch.heap_;
  heap.clear();
  for (size_t i = 0; i + 1 < symbols.size(); ++i) PushCandidate(static_cast<int32_t>(i), scratch);
  std::make_heap(heap.begin(), heap.end());
  const auto push = [&](int32_t at) {
    const size_t before = heap.size();
    PushCandidate(at, scratch);
    if (heap.size() != before) std::push_heap(heap.begin(), heap.end());
  };
  while (!heap.empty()) {
    const BpeScratch::Candidate top = heap.front();
    std::pop_heap(heap.begin(), heap.end());
    heap.pop_back();
    auto& left = symbols[top.at];
    if (!left.alive || left.next < 0) continue;
    auto& right = symbols[left.next];
    // The pair may have changed since; what counts is the token it becomes, not its rank, as in
    // Hugging Face's tokenizers.
    const auto found = merges_.find(PairKey(left.id, right.id));
    if (found == merges_.end() || found->second.merged != top.merged) continue;
    left.id = top.merged;
    left.next = right.next;
    right.alive = false;
    if (left.next >= 0) symbols[left.next].previous = top.at;
    if (left.previous >= 0) push(left.previous);
    if (left.next >= 0) push(top.at);
  }
}

}  // namespace pcmoe::text
