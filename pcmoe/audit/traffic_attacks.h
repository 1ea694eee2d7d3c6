// pcmoe/audit/traffic_attacks.h: what a party sees of the single other ones in a `weights` run:
// row counts under masks, and sizes of messages. Attacks on both; they would work without masks,
// or with sizes that depend on the text. Shape legend: L layers, E experts, N sequences.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "pcmoe/audit/base_model.h"
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
/// without what all batches have in common points to each party's and step's batch; `in` is its
/// own, `out` all others.
Scores MatchBatchesByCounts(std::span<const CountsShare> shares, std::span<const Text> texts);

/// Routing only: a decoder learns which tokens a sequence has from its share of rows per expert, on
/// public text, and reads the shares. How much likelier than by their frequency are the tokens of
/// sequences that are behind the share (`in`), and of the same party's of other steps (`out`)?
Scores MatchSequencesByRouting(std::span<const CountsShare> shares, std::span<const Text> texts,
                               const Capture& shadow, int64_t length, int64_t vocab,
                               size_t most_a_share);

/// Sizes: of each kind and place of message and each sender, are messages longer when more of the
/// sender's rows go to the coalition's experts? `in` are sizes, less their mean, where the rows are
/// above their median, `out` the others.
Scores MatchRowsBySizes(std::span<const MessageSize> sizes, std::span<const Text> texts,
                        const std::set<std::pair<int64_t, int64_t>>& own_experts);

}  // namespace pcmoe::audit
