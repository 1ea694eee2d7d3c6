// pcmoe/model/expert_shard.h: the experts somebody owns: weights, gradients, and requests against
// them. Shape legend: R rows, D width, N (row, expert) pairs, E experts of the layer here.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "pcmoe/model/expert_layer.h"
#include "pcmoe/model/parameters.h"

namespace pcmoe::model {

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

  using RequestGradients = ExpertLayer::RequestGradients;
  /// `dz_rd`: dL/dz. FAILED_PRECONDITION when the request was not kept or was used already.
  absl::StatusOr<RequestGradients> Backward(int64_t layer, RequestKey key, const at::Tensor& dz_rd);

  /// Adds the layer's weight gradients over all requests, in key order, and forgets the requests.
  void FinishLayer(int64_t layer);

  /// Forgets every request and zeroes the gradients: a new step or attempt begins.
  void Reset();

  /// In the compute dtype: what a product takes, one entry an expert.
  const ExpertMatrices& compute(int64_t layer) const {
    return compute_matrices_[static_cast<size_t>(layer)];
  }
  /// Views of `gradients()`, for whoever sums elsewhere; call MarkSummed after writing.
  ExpertMatrices& gradient_matrices(int64_t layer) {
    return gradient_matrices_[static_cast<size_t>(layer)];
  }
  void MarkSummed(int64_t layer) { summed_[static_cast<size_t>(layer)] = true; }
  const ExpertParameters& weights() const { return weights_; }
  ExpertParameters& mutable_weights() { return weights_; }
  /// fp32, complete for a layer after FinishLayer.
  const ExpertParameters& gradients() const { return gradients_; }
  /// Pairs computed for each owned expert since Reset; [layer][E].
  const std::vector<std::vector<int64_t>>& load() const { return load_; }

 private:
  const ModelConfig& config_;
  const Options options_;
  ExpertParameters weights_;                       // fp32
  ExpertParameters compute_;                       // copies in bf16; empty in fp32
  ExpertParameters gradients_;                     // fp32
  std::vector<ExpertMatrices> compute_matrices_;   // [layer]: weights as products take them
  std::vector<ExpertMatrices> gradient_matrices_;  // [layer]: views of gradients_
  std::vector<ExpertLayer> layers_;
  std::vector<std::vector<int64_t>> load_;
  std::vector<bool> summed_;  // [layer]: gradients_ are not zero
};

}  // namespace pcmoe::model
