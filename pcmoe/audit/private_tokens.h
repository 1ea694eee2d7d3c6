// pcmoe/audit/private_tokens.h: the scoring side: which private token each seen row really is.
// Attacks never get one of these. Shape legend: N private tokens, R rows, L layers.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <span>
#include <vector>

#include "pcmoe/audit/linker.h"
#include "pcmoe/audit/metrics.h"
#include "pcmoe/audit/truth.h"
#include "pcmoe/audit/view.h"
#include "pcmoe/data/packing.h"

namespace pcmoe::audit {

/// What the victims kept, by party.
using Truths = std::map<int, Truth>;

/// A private sequence and where it was used.
struct PrivateSequence {
  int party = 0;
  int64_t step = 0;
  data::Sequence sequence;
};

/// Every token that the victims trained on in some steps. Immutable.
class PrivateTokens {
 public:
  PrivateTokens(const Truths& truths, const std::vector<int64_t>& steps);

  int64_t size() const { return static_cast<int64_t>(token_n_.size()); }
  const std::vector<int32_t>& token_n() const { return token_n_; }
  /// The next token where there is a loss, else -1.
  const std::vector<int32_t>& label_n() const { return label_n_; }
  const std::vector<PrivateSequence>& sequences() const { return sequences_; }

  /// Index of the private token behind every row of every layer; -1 where the truth has none.
  std::vector<std::vector<int64_t>> TokensOfRows(const View& view) const;
  /// Index of the token that most of a cluster's rows are; a token that several clusters claim
  /// belongs to the largest, the others get -1.
  static std::vector<int64_t> TokensOfClusters(
      std::span<const Cluster> clusters, const std::vector<std::vector<int64_t>>& token_of_row_lr);

  /// Share of guesses that are right, over guesses with an index >= 0 and a target >= 0.
  Estimate Accuracy(std::span<const int64_t> index, const at::Tensor& guess,
                    const std::vector<int32_t>& target_n) const;
  /// The same over all targets >= 0: a token that nobody guessed is a miss.
  Estimate AccuracyOfAll(std::span<const int64_t> index, const at::Tensor& guess,
                         const std::vector<int32_t>& target_n) const;

 private:
  Estimate Rate(std::span<const int64_t> index, const at::Tensor& guess,
                const std::vector<int32_t>& target_n, bool all) const;

  struct Place {
    int64_t first = 0;  // index of the batch's first token
    int64_t count = 0;
  };
  const Truths& truths_;
  std::map<std::tuple<int, int64_t, int64_t>, Place> places_;  // party, step, micro-batch
  std::vector<int32_t> token_n_, label_n_;
  std::vector<int32_t> document_n_;
  std::vector<PrivateSequence> sequences_;
};

}  // namespace pcmoe::audit
