// pcmoe/model/expert_layer.h: the explicit formulas of a layer's experts, forward, backward and
// weight gradients (DESIGN 3.2), whoever owns the weights. No autograd graph is kept.
// Shape legend: R rows, D width, F expert width, N (row, expert) pairs, E experts.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <utility>
#include <vector>

#include "pcmoe/base/status.h"
#include "pcmoe/model/row_request.h"

namespace pcmoe::model {

/// Whose request it is: (party, micro-batch). Weight gradients are summed in this order.
using RequestKey = std::pair<int, int64_t>;

/// The weights of a layer's experts, or the gradients of them, wherever each of them lies.
struct ExpertMatrices {
  std::vector<at::Tensor> gate_up_fd;  ///< [E] of [2F, D], gate rows first.
  std::vector<at::Tensor> down_df;     ///< [E] of [D, F].
};

/// The requests of one layer, from forward to weight gradients. Each request is computed by itself,
/// so results do not depend on what else arrived. Weights are given to every call, in the dtype of
/// the rows, and may lie elsewhere in each. One thread calls.
class ExpertLayer {
 public:
  /// With `recompute` only the rows are kept, and the first product is run again in backward.
  explicit ExpertLayer(bool recompute) : recompute_(recompute) {}

  /// z_r = sum over the row's experts of weight * expert(x_r); [R, D]. With `keep`, the request can
  /// be entered in Backward once.
  at::Tensor Forward(const ExpertMatrices& weights, RequestKey key, const at::Tensor& x_rd,
                     PairPlan plan, bool keep);

  struct RequestGradients {
    at::Tensor dx_rd;
    at::Tensor dweight_n;  ///< float [N], in the order the pairs were given.
  };
  /// `dz_rd`: dL/dz. FAILED_PRECONDITION when the request was not kept or was used already.
  absl::StatusOr<RequestGradients> Backward(const ExpertMatrices& weights, RequestKey key,
                                            const at::Tensor& dz_rd);

  /// Adds the weight gradients over all requests to `gradients` (fp32), in key order, and forgets
  /// the requests. False when there were none.
  bool AddWeightGradients(ExpertMatrices& gradients);

  void Clear() { saved_.clear(); }

 private:
  struct Saved {
    at::Tensor x_rd, h_nf;          // After backward h_nf holds dH and
    at::Tensor dz_rd, scaled_a_nf;  // these are set.
    PairPlan plan;
    bool backward_done = false;
  };
  static at::Tensor FirstProduct(const ExpertMatrices& weights, const Saved& saved);

  const bool recompute_;
  std::map<RequestKey, Saved> saved_;
};

}  // namespace pcmoe::model
