// pcmoe/model/expert_provider.h: the seam between a model and its experts: local, remote or
// fetched. Shape legend: T tokens, D hidden width, K experts per token.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "pcmoe/base/status.h"

namespace pcmoe::model {

/// Which experts compute each token, and with which weight.
struct Routing {
  at::Tensor experts_tk;  ///< int64 [T, K], global ids, distinct within a row.
  at::Tensor weights_tk;  ///< float32 [T, K].
};

/// What comes back from the experts of one micro-batch in backward.
struct ExpertInputGradients {
  at::Tensor dh_td;        ///< Of the experts' input.
  at::Tensor dweights_tk;  ///< float32, of the routing weights.
};

/// Computes y = sum_k weight_k * expert_k(h) for the tokens of this party, layer by layer, and the
/// gradients; the model cannot tell where. A pass is BeginPass, its layers, FinishPass. A layer's
/// calls are BeginForward, Dispatch for every micro-batch in ascending order, Combine for every
/// micro-batch in ascending order; then, layers descending, the same with BeginBackward,
/// DispatchGradient, CombineGradient, and EndBackward.
/// Between a Dispatch and its Combine the caller may compute something else. One thread.
class ExpertProvider {
 public:
  virtual ~ExpertProvider() = default;
  virtual absl::Status BeginForward(int64_t layer) = 0;
  /// `h_td` must stay unchanged until EndBackward of the layer.
  virtual absl::Status Dispatch(int64_t layer, int64_t micro_batch, const at::Tensor& h_td,
                                const Routing& routing) = 0;
  virtual absl::StatusOr<at::Tensor> Combine(int64_t layer, int64_t micro_batch) = 0;
  virtual absl::Status BeginBackward(int64_t layer) = 0;
  virtual absl::Status DispatchGradient(int64_t layer, int64_t micro_batch,
                                        const at::Tensor& dy_td) = 0;
  virtual absl::StatusOr<ExpertInputGradients> CombineGradient(int64_t layer,
                                                               int64_t micro_batch) = 0;
  /// The gradients of the layer's experts, summed over the step, are complete when this returns.
  virtual absl::Status EndBackward(int64_t layer) = 0;

  /// A pass over all layers starts. `micro_batches_p`: how many every party brings, by party; in
  /// evaluation (`training` false) nothing is kept for backward, gradients stay as they are.
  virtual absl::Status BeginPass(const std::vector<int64_t>& micro_batches_p, bool training) = 0;
  /// The pass is over for everybody: all gradients of the experts here are complete.
  virtual absl::Status FinishPass() = 0;
  /// Forgets a pass that was given up.
  virtual void Reset() = 0;
  /// Distinct (token, remote owner) rows that left since the last call; for reports.
  virtual int64_t TakeRowsSent() = 0;
};

}  // namespace pcmoe::model
