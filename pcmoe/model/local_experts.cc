// pcmoe/model/local_experts.cc: see local_experts.h.
#include "pcmoe/model/local_experts.h"

#include <ATen/ops/zeros_like.h>

#include <numeric>

namespace pcmoe::model {

std::vector<RowExpert> PairsFor(const Routing& routing, std::span<const int32_t> local_index_e) {
  const int64_t tokens = routing.experts_tk.size(0);
  const int64_t top_k = routing.experts_tk.size(1);
  const int64_t* experts = routing.experts_tk.const_data_ptr<int64_t>();
  const float* weights = routing.weights_tk.const_data_ptr<float>();
  std::vector<RowExpert> pairs;
  pairs.reserve(static_cast<size_t>(tokens * top_k));
  for (int64_t i = 0; i < tokens * top_k; ++i) {
    const int32_t local = local_index_e[static_cast<size_t>(experts[i])];
    if (local >= 0) pairs.push_back({static_cast<int32_t>(i / top_k), local, weights[i]});
  }
  return pairs;
}

void ScatterWeightGradients(const Routing& routing, std::span<const int32_t> local_index_e,
                            const at::Tensor& dweight_n, at::Tensor& dweights_tk) {
  const int64_t count = routing.experts_tk.numel();
  const int64_t* experts = routing.experts_tk.const_data_ptr<int64_t>();
  const float* source = dweight_n.const_data_ptr<float>();
  float* target = dweights_tk.mutable_data_ptr<float>();
  for (int64_t i = 0; i < count; ++i) {
    if (local_index_e[static_cast<size_t>(experts[i])] >= 0) target[i] += *source++;
  }
}

LocalExperts::LocalExperts(ExpertShard& shard, int party) : shard_(shard), party_(party) {
  size_t experts = 0;
  for (const ExpertLayerParameters& layer : shard.weights()) {
    experts = std::max(experts, layer.expert_ids.size());
  }
  identity_.resize(experts);
  std::iota(identity_.begin(), identity_.end(), 0);
}

absl::Status LocalExperts::BeginPass(const PassPlan& plan) {
  training_ = plan.training;
  Reset();
  if (training_ && owns_shard_) shard_.Reset();
  return absl::OkStatus();
}

void LocalExperts::Reset() {
  routing_.clear();
  outputs_.clear();
  gradients_.clear();
}

absl::Status LocalExperts::BeginForward(int64_t) {
  outputs_.clear();
  return absl::OkStatus();
}

absl::Status LocalExperts::Dispatch(int64_t layer, int64_t micro_batch, const at::Tensor& h_td,
                                    const Routing& routing) {
  PCMOE_ASSIGN_OR_RETURN(PairPlan plan, PlanPairs(PairsFor(routing, identity_), h_td.size(0),
                                                  shard_.ExpertsIn(layer)));
  outputs_[micro_batch] =
      shard_.Forward(layer, {party_, micro_batch}, h_td, std::move(plan), training_);
  if (training_) routing_[{layer, micro_batch}] = routing;
  return absl::OkStatus();
}

absl::StatusOr<at::Tensor> LocalExperts::Combine(int64_t, int64_t micro_batch) {
  return std::move(outputs_[micro_batch]);
}

absl::Status LocalExperts::BeginBackward(int64_t) {
  gradients_.clear();
  return absl::OkStatus();
}

absl::Status LocalExperts::DispatchGradient(int64_t layer, int64_t micro_batch,
                                            const at::Tensor& dy_td) {
  PCMOE_ASSIGN_OR_RETURN(ExpertShard::RequestGradients request,
                         shard_.Backward(layer, {party_, micro_batch}, dy_td));
  const auto routing = routing_.extract({layer, micro_batch});
  ExpertInputGradients& result = gradients_[micro_batch];
  result.dh_td = std::move(request.dx_rd);
  result.dweights_tk = at::zeros_like(routing.mapped().weights_tk);
  ScatterWeightGradients(routing.mapped(), identity_, request.dweight_n, result.dweights_tk);
  return absl::OkStatus();
}

absl::StatusOr<ExpertInputGradients> LocalExperts::CombineGradient(int64_t, int64_t micro_batch) {
  return std::move(gradients_[micro_batch]);
}

absl::Status LocalExperts::EndBackward(int64_t layer) {
  if (owns_shard_) shard_.FinishLayer(layer);
  return absl::OkStatus();
}

}  // namespace pcmoe::model
