// pcmoe/model/expert_shard.cc: see expert_shard.h.
#include "pcmoe/model/expert_shard.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>

namespace pcmoe::model {
namespace {

ExpertMatrices MatricesOf(const ExpertLayerParameters& layer) {
  ExpertMatrices matrices;
  for (size_t e = 0; e < layer.expert_ids.size(); ++e) {
    matrices.gate_up_fd.push_back(layer.gate_up_efd[static_cast<int64_t>(e)]);
    matrices.down_df.push_back(layer.down_edf[static_cast<int64_t>(e)]);
  }
  return matrices;
}

}  // namespace

ExpertShard::ExpertShard(const ModelConfig& config, ExpertParameters weights, Options options)
    : config_(config), options_(options), weights_(std::move(weights)) {
  for (const ExpertLayerParameters& layer : weights_) {
    ExpertLayerParameters gradient;
    gradient.expert_ids = layer.expert_ids;
    if (!layer.expert_ids.empty()) {
      gradient.gate_up_efd = at::zeros_like(layer.gate_up_efd);
      gradient.down_edf = at::zeros_like(layer.down_edf);
    }
    gradient_matrices_.push_back(MatricesOf(gradient));
    gradients_.push_back(std::move(gradient));
    load_.emplace_back(layer.expert_ids.size(), 0);
    layers_.emplace_back(options_.recompute);
  }
  summed_.assign(weights_.size(), false);
  RefreshComputeWeights();
}

void ExpertShard::RefreshComputeWeights() {
  compute_matrices_.clear();
  if (options_.compute_dtype == at::kFloat) {
    for (const ExpertLayerParameters& layer : weights_) {
      compute_matrices_.push_back(MatricesOf(layer));
    }
    return;
  }
  compute_.resize(weights_.size());
  for (size_t l = 0; l < weights_.size(); ++l) {
    if (!weights_[l].expert_ids.empty()) {
      if (!compute_[l].gate_up_efd.defined()) {
        const auto options = weights_[l].gate_up_efd.options().dtype(options_.compute_dtype);
        compute_[l].expert_ids = weights_[l].expert_ids;
        compute_[l].gate_up_efd = at::empty(weights_[l].gate_up_efd.sizes(), options);
        compute_[l].down_edf = at::empty(weights_[l].down_edf.sizes(), options);
      }
      compute_[l].gate_up_efd.copy_(weights_[l].gate_up_efd);
      compute_[l].down_edf.copy_(weights_[l].down_edf);
    }
    compute_matrices_.push_back(MatricesOf(compute_[l]));
  }
}

int64_t ExpertShard::ExpertsIn(int64_t layer) const {
  return static_cast<int64_t>(weights_[static_cast<size_t>(layer)].expert_ids.size());
}

at::Tensor ExpertShard::Forward(int64_t layer, RequestKey key, const at::Tensor& x_rd,
                                PairPlan plan, bool keep) {
  const auto l = static_cast<size_t>(layer);
  if (keep) {
    for (size_t e = 0; e < load_[l].size(); ++e) {
      load_[l][e] += plan.expert_offsets[e + 1] - plan.expert_offsets[e];
    }
  }
  return layers_[l].Forward(compute_matrices_[l], key, x_rd, std::move(plan), keep);
}

absl::StatusOr<ExpertShard::RequestGradients> ExpertShard::Backward(int64_t layer, RequestKey key,
                                                                    const at::Tensor& dz_rd) {
  const auto l = static_cast<size_t>(layer);
  return layers_[l].Backward(compute_matrices_[l], key, dz_rd);
}

void ExpertShard::FinishLayer(int64_t layer) {
  const auto l = static_cast<size_t>(layer);
  if (layers_[l].AddWeightGradients(gradient_matrices_[l])) summed_[l] = true;
}

void ExpertShard::Reset() {
  for (size_t l = 0; l < weights_.size(); ++l) {
    layers_[l].Clear();
    std::fill(load_[l].begin(), load_[l].end(), 0);
    if (!summed_[l]) continue;
    gradients_[l].gate_up_efd.zero_();
    gradients_[l].down_edf.zero_();
    summed_[l] = false;
  }
}

}  // namespace pcmoe::model
