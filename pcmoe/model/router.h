// pcmoe/model/router.h: chooses the experts of every token; the balance loss; both gradients.
// Shape legend: T tokens, E experts, K experts per token.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "pcmoe/model/config.h"
#include "pcmoe/model/expert_provider.h"

namespace pcmoe::model {

/// A micro-batch's choice in one layer, with what the gradient needs.
struct RouterState {
  at::Tensor probabilities_te;  ///< float, softmax over all experts.
  Routing routing;
};

/// Softmax over all experts in fp32, the K largest (ties to the lower id), largest first; weights
/// are divided by their sum when the config says norm_topk_prob. `logits_te` any float dtype.
RouterState Route(const ModelConfig& config, const at::Tensor& logits_te);

/// transformers' load_balancing_loss_func over all layers and tokens of a step:
/// E * sum_e (share of choices that went to e, summed over slots) * (mean probability of e).
class BalanceLoss {
 public:
  BalanceLoss(int64_t layers, int64_t experts)
      : chosen_le_(static_cast<size_t>(layers)),
        chosen_e_(static_cast<size_t>(experts), 0),
        probability_e_(static_cast<size_t>(experts), 0) {}
  /// A micro-batch's choice in the sparse layer `layer`.
  void Add(int64_t layer, const RouterState& state);
  /// K when the load is perfectly even; 0 before anything was added.
  double Value() const;
  /// d Value / d probability of expert e, the same for every token and layer.
  std::vector<float> Gradient() const;
  /// The same for a loss over the federation's tokens, of which those added here are a part.
  static std::vector<float> Gradient(const FederationLoad& load);
  /// Choices per expert in each layer; empty for a layer of which nothing was added.
  const std::vector<std::vector<int64_t>>& chosen_le() const { return chosen_le_; }

 private:
  std::vector<std::vector<int64_t>> chosen_le_;
  std::vector<int64_t> chosen_e_;  // summed over layers
  std::vector<double> probability_e_;
  int64_t tokens_ = 0;  // summed over layers
};

/// dL/dlogits (float [T, E]) from dL/dweights and dL/dprobabilities (one row, added for every
/// token).
at::Tensor RouteBackward(const ModelConfig& config, const RouterState& state,
                         const at::Tensor& dweights_tk, const std::vector<float>& dprobability_e);

}  // namespace pcmoe::model
