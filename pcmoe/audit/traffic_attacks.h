// pcmoe/audit/traffic_attacks.h: what a party sees of the single other ones in a `weights` run:
// row counts under masks, and sizes of messages. Attacks on both; they would work without masks,
// or with sizes that depend on the text. Shape legend: L layers, E experts, N sequences.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <set>
#include <utility>
#include <vector>

#include "pcmoe/audit/base_model.h"
#include "pcmoe/audit/token_decoder.h"
#include "pcmoe/audit/view.h"

namespace pcmoe::audit {

/// The counts that one party sent in one step, as they came.
struct CountsShare {
  int64_t step = 0;
  int home = 0;
  std::vector<uint32_t> words;  ///< [L*E]: its rows per layer and expert, under its masks.
};

/// All that came to the member, of every step's last attempt. DATA_LOSS when one is of another
/// length than L*E.
absl::StatusOr<std::vector<CountsShare>> ReadCounts(const Member& member, int64_t words);

/// A text that may be behind a share: a sequence, and what the public model does with it.
struct Text {
  int64_t step = 0;
  int home = 0;
  at::Tensor tokens_t;   ///< int64 [T]
  at::Tensor counts_le;  ///< float [L, E]: its rows per layer and expert.
};

/// The texts with their counts; `where` holds step and home of each sequence.
absl::StatusOr<std::vector<Text>> TextsOf(BaseModel& base,
                                          std::span<const data::Sequence> sequences,
                                          std::span<const std::pair<int64_t, int>> where);

/// Scores of tries: of what is so, and of what is not.
struct Scores {
  std::vector<double> in, out;
};

/// Counts only: is this whole batch behind this share? For each share and layer, how far the share
/// without what all batches have in common points to each party's and step's batch.
class BatchesByCounts {
 public:
  explicit BatchesByCounts(std::span<const Text> texts);

  /// `in` are the scores of the batches that are behind their share, `out` of all others; empty
  /// with fewer than two batches.
  Scores Match(std::span<const CountsShare> shares) const;

 private:
  std::vector<std::pair<int64_t, int>> keys_;  // step, home
  at::Tensor usual_l1e_;                       // double: unit vectors, what batches have in common
  at::Tensor batches_lbe_;                     // double: unit vectors without it
};

/// Routing only: a decoder learns which tokens a sequence has from its share of rows per expert, on
/// public text, and reads the shares. How much likelier than by their frequency are the tokens of
/// sequences that are behind the share, and of the same party's of other steps?
class SequencesByRouting {
 public:
  /// Trains the decoder on the shadow text, in sequences of `length`. Keeps the texts' span.
  SequencesByRouting(std::span<const Text> texts, const Capture& shadow, int64_t length,
                     int64_t vocab, size_t most_a_share);

  /// `in` are sequences behind their share, `out` others: as many of each share, at most
  /// most_a_share.
  Scores Match(std::span<const CountsShare> shares) const;

 private:
  std::span<const Text> texts_;
  size_t most_a_share_;
  TokenDecoder decoder_;
  at::Tensor usual_v_;
};

/// What an attack on shares gets where single shares tell nothing: its AUCs when the shares of
/// every step are drawn anew, `draws` times: uniform in 32 bits, with the sum that they have, which
/// the members learn by design; a share that is the only one of its step is drawn without. So they
/// depend on each other as the real ones do: each alone is random, all of a step together are not.
/// The seed is fixed. Empty when the attack has no tries.
std::vector<double> AucsOfFreshMasks(
    std::span<const CountsShare> shares, int draws,
    const std::function<Scores(std::span<const CountsShare>)>& match);

/// Sizes: of each kind and place of message and each sender, are messages longer when more of the
/// sender's rows go to the coalition's experts? `in` are sizes, less their mean, where the rows are
/// above their median, `out` the others.
Scores MatchRowsBySizes(std::span<const MessageSize> sizes, std::span<const Text> texts,
                        const std::set<std::pair<int64_t, int64_t>>& own_experts);

}  // namespace pcmoe::audit
