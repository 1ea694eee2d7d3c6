// pcmoe/text/bpe.h: byte pair encoding of one word, with byte fallback and unknown tokens.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "pcmoe/base/status.h"

namespace pcmoe::text {

/// The settings of a BPE model; names as in tokenizer.json.
struct BpeOptions {
  std::string unk_token;                  ///< Empty: characters outside the vocabulary are dropped.
  std::string continuing_subword_prefix;  ///< Before every character of a word but the first.
  std::string end_of_word_suffix;         ///< After the last character of a word.
  bool has_unk = false;
  bool fuse_unk = false;
  bool byte_fallback = false;
  bool ignore_merges = false;
};

/// Memory that encoding needs again and again, and a cache of words of bounded size. Belongs to one
/// model; not thread-safe.
class BpeScratch {
 public:
  BpeScratch();

 private:
  friend class Bpe;
  struct Symbol {
    int32_t id;
    int32_t previous;
    int32_t next;
    bool alive;
  };
  struct Candidate {
    uint32_t rank;
    int32_t at;
    int32_t merged;
    // Inverted, as std::push_heap keeps the largest first: lowest rank, then leftmost.
    bool operator<(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : at > other.at;
    }
  };
  struct CachedWord {
    std::string word;
    std::vector<int32_t> ids;
  };
  std::vector<Symbol> symbols_;
  std::vector<Candidate> heap_;
  std::vector<CachedWord> cache_;  // Direct-mapped by hash: a word takes the place of another.
};

/// A trained vocabulary and its merges. Immutable; const use is thread-safe.
class Bpe {
 public:
  using Vocabulary = std::vector<std::pair<std::string, int32_t>>;
  using Merges = std::vector<std::pair<std::string, std::string>>;

  /// Ids must be below kMaxId and distinct. INVALID_ARGUMENT when a merge or the unknown token is
  /// not in the vocabulary.
  static absl::StatusOr<Bpe> Create(Vocabulary vocabulary, const Merges& merges,
                                    BpeOptions options);
  static constexpr int32_t kMaxId = 1 << 22;

  /// Appends the ids of `word` (valid UTF-8, below 2^31 bytes), in O(n log n) whatever the word.
  void Encode(std::string_view word, BpeScratch& scratch, std::vector<int32_t>& ids) const;

  /// As Encode, for text that no pre-tokenizer has cut: cuts it where no merge can reach across,
  /// which changes nothing in the result and lets the cache work.
  void EncodeUncut(std::string_view text, BpeScratch& scratch, std::vector<int32_t>& ids) const;

  /// The id of a token; -1 when it is not in the vocabulary.
  int32_t TokenToId(std::string_view token) const;
  /// The token of an id; null when there is none.
  const std::string* IdToToken(int32_t id) const;
  /// Distinct tokens, and one more than the largest id.
  size_t size() const { return ids_.size(); }
  int32_t id_bound() const { return static_cast<int32_t>(tokens_.size()); }

 private:
  struct Merge {
    uint32_t rank;
    int32_t merged;
  };
  static uint64_t PairKey(int32_t left, int32_t right);
  absl::Status AddMerges(const Merges& merges);
  void FindCuts(const Merges& merges);
  void AppendSymbols(std::string_view word, BpeScratch& scratch) const;
  bool AppendBytes(std::string_view text, BpeScratch& scratch) const;
  void MergeAll(BpeScratch& scratch) const;
  void PushCandidate(int32_t at, BpeScratch& scratch) const;
  void EncodeUncached(std::string_view word, BpeScratch& scratch, std::vector<int32_t>& ids) const;

  BpeOptions options_;
  std::vector<std::string> tokens_;                     // By id; holes are empty and not in ids_.
  absl::flat_hash_map<std::string_view, int32_t> ids_;  // Views of tokens_.
  absl::flat_hash_map<uint64_t, Merge> merges_;
  std::array<int32_t, 256> byte_ids_{};     // "<0x41>" and so on; -1 where there is none.
  std::array<int32_t, 0x200> short_ids_{};  // Of one-character tokens, as byte-level BPE needs.
  int32_t unk_id_ = -1;
  bool can_cut_ = false;
  absl::flat_hash_map<std::string_view, bool> joined_to_space_;  // Characters a token has before ▁.
};

}  // namespace pcmoe::text
