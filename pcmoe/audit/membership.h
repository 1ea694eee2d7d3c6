// pcmoe/audit/membership.h: was this document trained on? By looking for its rows among those seen
// (A8), and by the loss of a model (outsiders). Shape legend: C candidates.
#pragma once

#include <span>
#include <vector>

#include "pcmoe/audit/base_model.h"
#include "pcmoe/audit/view.h"

namespace pcmoe::audit {

/// A8: the public model's rows of each candidate against the rows seen in one step: mean over the
/// better half of the cosines of the best matches, for tokens that the coalition would have seen,
/// averaged over the layers.
absl::StatusOr<std::vector<double>> ScoreByRows(const View& view, int64_t step, BaseModel& base,
                                                std::span<const data::Sequence> candidates);

/// Reference-loss score: how much less the model's loss on a candidate is than the public base's.
absl::StatusOr<std::vector<double>> ScoreByLoss(BaseModel& model, BaseModel& base,
                                                std::span<const data::Sequence> candidates);

/// A7, for an eavesdropper of sizes: guesses which of the homes sent a micro-batch from the sizes
/// of its messages, learned on every other step. Returns right or wrong for each micro-batch of the
/// steps held out; empty when there is too little.
std::vector<bool> GuessHomeBySizes(const View& view);

}  // namespace pcmoe::audit
