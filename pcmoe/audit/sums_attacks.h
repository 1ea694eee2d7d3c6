// pcmoe/audit/sums_attacks.h: attacks on released sums of gradients: who was in it, which words,
// and whether anything can be read back. Shape legend: V vocabulary, D hidden width, C candidates.
#pragma once

#include <span>
#include <vector>

#include "pcmoe/audit/base_model.h"
#include "pcmoe/audit/sums_view.h"

namespace pcmoe::audit {

/// A sum, and what a sum of losses was multiplied by in it: one over the federation's tokens.
struct ScaledSum {
  const ReleasedSum* sum = nullptr;
  double gradient_scale = 1;
};

/// Membership by gradient alignment: a matched filter. The attacker computes each candidate's
/// gradient of the owner's experts with its own copy of the model, takes all that public documents'
/// gradients span out of it and of the sum, and scores how much likelier their product is if the
/// candidate is in the sum, expert by expert, against public documents that are not. All sums are
/// of one owner. A score for each sum and candidate.
absl::StatusOr<std::vector<std::vector<double>>> ScoreByAlignment(
    std::span<const ScaledSum> sums, BaseModel& model, std::span<const data::Sequence> shadow,
    std::span<const data::Sequence> candidates);

/// Two released sums as if their steps had been one: what a step of more tokens would release,
/// while weights hardly move. Both are of one owner.
ReleasedSum Added(const ReleasedSum& a, const ReleasedSum& b);

/// Rows of owners' summed gradients as if they were rows received, for row matching. Where few
/// tokens are behind one it points along their rows, or against them; so each is there with both
/// signs, as long as rows of public text (`usual`) are.
View RowsOfSums(std::span<const ReleasedSum> sums, const Capture& usual);

/// Span check (DAGER-like), for every token v: minus the smallest part of the token's usual row of
/// layer `layer` that lies outside the row space of an owner's gradient. Equal for all once the
/// rows behind a sum are more than D.
std::vector<double> ScoreWordsBySpan(const ReleasedSum& sum, int64_t layer,
                                     const at::Tensor& usual_vd);

/// Word presence from the sums of a layer's first products: how much of the sum points along the
/// token's usual row, in units of what other tokens get.
std::vector<double> ScoreWordsByProjection(const ReleasedSum& sum, int64_t layer,
                                           const at::Tensor& usual_vd);

/// Word presence from an embedding's summed gradient: the norm of each token's row.
std::vector<double> ScoreWordsByEmbedding(const ReleasedSum& sum);

}  // namespace pcmoe::audit
