// pcmoe/eval/batches.cc: see batches.h.
#include "pcmoe/eval/batches.h"

#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

namespace pcmoe::eval {

model::MicroBatch ToMicroBatch(std::span<const data::Sequence* const> sequences) {
  size_t longest = 0;
  for (const data::Sequence* sequence : sequences) {
    longest = std::max(longest, sequence->tokens.size());
  }
  const auto count = static_cast<int64_t>(sequences.size());
  const auto length = static_cast<int64_t>(longest);
  model::MicroBatch batch;
  batch.tokens_bs = at::zeros({count, length}, at::kLong);
  batch.labels_bs = at::full({count, length}, data::kIgnoredLabel, at::kLong);
  int64_t* tokens = batch.tokens_bs.mutable_data_ptr<int64_t>();
  int64_t* labels = batch.labels_bs.mutable_data_ptr<int64_t>();
  for (const data::Sequence* sequence : sequences) {
    std::copy(sequence->tokens.begin(), sequence->tokens.end(), tokens);
    std::copy(sequence->labels.begin(), sequence->labels.end(), labels);
    tokens += length;
    labels += length;
    auto& starts = batch.document_starts.emplace_back(sequence->document_starts.begin(),
                                                      sequence->document_starts.end());
    if (sequence->tokens.size() < longest) {
      starts.push_back(static_cast<int64_t>(sequence->tokens.size()));
    }
  }
  return batch;
}

std::vector<std::vector<const data::Sequence*>> CutByTokens(
    std::span<const data::Sequence> sequences, int64_t most_tokens) {
  std::vector<std::vector<const data::Sequence*>> pieces;
  size_t longest = 0;
  for (const data::Sequence& sequence : sequences) {
    longest = std::max(longest, sequence.tokens.size());
    const bool fits = !pieces.empty() &&
                      static_cast<int64_t>(longest * (pieces.back().size() + 1)) <= most_tokens;
    if (!fits) {
      pieces.emplace_back();
      longest = sequence.tokens.size();
    }
    pieces.back().push_back(&sequence);
  }
  return pieces;
}

}  // namespace pcmoe::eval
