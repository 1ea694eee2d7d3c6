// pcmoe/train/federated_step.h: one step of the whole federation (DESIGN 3.6): begin, forward and
// backward, vote; then everybody's optimizers or nobody's.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "pcmoe/eval/eval_set.h"
#include "pcmoe/exchange/session/session.h"
#include "pcmoe/train/party_model.h"

namespace pcmoe::train {

/// What a step does, the same for all parties.
struct StepPlan {
  int64_t step = 0;  ///< Committed steps before this one.
  uint32_t attempt = 0;
  double learning_rate = 0;
  double max_grad_norm = 0;  ///< 0: no clip.
  double balance_coef = 0;  ///< On the balance loss of each party, weighted by its share of tokens.
  int64_t durable_step = 0;  ///< This party's newest checkpoint; told to the others.
};

/// What came out.
struct StepReport {
  model::PassResult own;            ///< This party's tokens only.
  int64_t federation_tokens = 0;    ///< Loss tokens of all parties.
  double grad_norm = 0;             ///< Before the clip, over all parties.
  int64_t common_durable_step = 0;  ///< The newest checkpoint that every party has.
};

/// Runs one step. On any error nothing has changed but gradients, which are reset; the caller
/// aborts the attempt. When it returns OK, every party has voted that its part is finite, and this
/// party's weights have been stepped.
absl::StatusOr<StepReport> RunStep(const StepPlan& plan, std::span<const model::MicroBatch> batches,
                                   exchange::Session& session, model::ExpertProvider& experts,
                                   PartyModel& model);

/// Forward passes over everybody's evaluation data; each party learns its own result only.
/// `sets[i]` is evaluated into result i, `at_once` micro-batches at a time.
absl::StatusOr<std::vector<eval::EvalResult>> RunEvaluation(
    int64_t step, uint32_t attempt, std::span<const eval::EvalSet> sets, size_t at_once,
    exchange::Session& session, model::ExpertProvider& experts, PartyModel& model);

/// Mean of a metric over the parties that have one (empty: this party has none); every party tells
/// its own to all others, and all get the same. Within the evaluation's phase. Empty when no party
/// has one.
absl::StatusOr<std::optional<double>> ShareMetric(std::optional<double> own,
                                                  exchange::Session& session);

}  // namespace pcmoe::train
