// pcmoe/model/expert_shard.h: the experts somebody owns: weights, and the explicit formulas for
// forward, backward and weight gradients (DESIGN 3.2). No autograd graph is kept.
// Shape legend: R rows, D width, F expert width, N (row, expert) pairs, E experts of the layer
// here.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <utility>
#include <vector>

#include "pcmoe/model/parameters.h"
#include "pcmoe/model/row_request.h"

namespace pcmoe::model {

/// Whose request it is: (party, micro-batch). Weight gradients are summed in this order.
using RequestKey = std::pair<int, int64_t>;

/// Computes requests against the owned experts. Each request is computed by itself, so results do
/// not depend on what else arrived. fp32 master weights; compute in `compute_dtype`. One thread
/// calls.
class ExpertShard {
 public:
  struct Options {
    at::ScalarType compute_dtype = at::kFloat;  ///< kFloat or kBFloat16.
    bool recompute = false;  ///< Keep only the rows, and run the first product again in backward.
  };
  ExpertShard(const ModelConfig& config, ExpertParameters weights, Options options);

  /// Copies the master weights to the compute dtype; call after every change of the weights.
  void RefreshComputeWeights();

  int64_t ExpertsIn(int64_t layer) const;
  at::ScalarType compute_dtype() const { return options_.compute_dtype; }

  /// z_r = sum over the row's experts of weight * expert(x_r); [R, D]. With `keep`, the request can
  /// be entered in Backward once.
  at::Tensor Forward(int64_t layer, RequestKey key, const at::Tensor& x_rd, PairPlan plan,
                     bool keep);

  struct RequestGradients {
    at::Tensor dx_rd;
    at::Tensor dweight_n;  ///< float [N], in the order the pairs were given.
  };
  /// `dz_rd`: dL/dz. FAILED_PRECONDITION when the request was not kept or was used already.
  absl::StatusOr<RequestGradients> Backward(int64_t layer, RequestKey key, const at::Tensor& dz_rd);

  /// Adds the layer's weight gradients over all requests, in key order, and forgets the requests.
  void FinishLayer(int64_t layer);

  /// Forgets every request and zeroes the gradients: a new step or attempt begins.
  void Reset();

  const ExpertParameters& weights() const { return weights_; }
  ExpertParameters& mutable_weights() { return weights_; }
  /// fp32, complete for a layer after FinishLayer.
  const ExpertParameters& gradients() const { return gradients_; }
  /// Pairs computed for each owned expert since Reset; [layer][E].
  const std::vector<std::vector<int64_t>>& load() const { return load_; }

 private:
  struct Saved {
    at::Tensor x_rd, h_nf;          // After backward h_nf holds dH and
    at::Tensor dz_rd, scaled_a_nf;  // these are set.
    PairPlan plan;
    bool backward_done = false;
  };
  at::Tensor FirstProduct(int64_t layer, const Saved& saved) const;

  const ModelConfig& config_;
  const Options options_;
  ExpertParameters weights_;                        // fp32
  ExpertParameters compute_;                        // the same tensors in fp32, copies in bf16
  ExpertParameters gradients_;                      // fp32
  std::vector<std::map<RequestKey, Saved>> saved_;  // [layer]
  std::vector<std::vector<int64_t>> load_;
  std::vector<bool> summed_;  // [layer]: gradients_ are not zero
};

}  // namespace pcmoe::model
