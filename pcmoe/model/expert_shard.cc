// pcmoe/model/expert_shard.cc: see expert_shard.h.
#include "pcmoe/model/expert_shard.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <atomic>
#include <numeric>

#include "pcmoe/model/kernels.h"
#include "pcmoe/model/matmul.h"

namespace pcmoe::model {
namespace {

// Runs `work(expert)` for every expert with rows, one expert a thread at a time, the longest first.
// Inside, LibTorch's own products run on one thread.
template <typename Work>
void ForEachExpert(const std::vector<int64_t>& rows_e, const Work& work) {
  std::vector<int64_t> order(rows_e.size());
  std::iota(order.begin(), order.end(), 0);
  std::erase_if(order, [&](int64_t e) { return rows_e[static_cast<size_t>(e)] == 0; });
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return rows_e[static_cast<size_t>(a)] > rows_e[static_cast<size_t>(b)];
  });
  std::atomic<size_t> next{0};
  at::parallel_for(0, at::get_num_threads(), 1, [&](int64_t, int64_t) {
    for (size_t i = next++; i < order.size(); i = next++) work(order[i]);
  });
}

std::vector<int64_t> RowsPerExpert(const PairPlan& plan) {
  std::vector<int64_t> rows(plan.expert_offsets.size() - 1);
  for (size_t e = 0; e < rows.size(); ++e) {
    rows[e] = plan.expert_offsets[e + 1] - plan.expert_offsets[e];
  }
  return rows;
}

at::Tensor RowsOf(const at::Tensor& x_nd, const PairPlan& plan, int64_t expert) {
  const auto e = static_cast<size_t>(expert);
  return x_nd.narrow(0, plan.expert_offsets[e],
                     plan.expert_offsets[e + 1] - plan.expert_offsets[e]);
}

at::Tensor Gathered(const at::Tensor& x_rd, const PairPlan& plan) {
  at::Tensor x_nd = at::empty({plan.pairs(), x_rd.size(1)}, x_rd.options());
  kernels::Gather(x_rd, plan.row_n, x_nd);
  return x_nd;
}

at::Tensor SummedOverPairs(const at::Tensor& y_nd, const PairPlan& plan) {
  at::Tensor y_rd = at::empty({plan.rows, y_nd.size(1)}, y_nd.options());
  kernels::GatherSum(y_nd, plan.row_offsets_r1, plan.row_positions_n, y_rd);
  return y_rd;
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
    gradients_.push_back(std::move(gradient));
    load_.emplace_back(layer.expert_ids.size(), 0);
  }
  saved_.resize(weights_.size());
  summed_.assign(weights_.size(), false);
  RefreshComputeWeights();
}

void ExpertShard::RefreshComputeWeights() {
  if (options_.compute_dtype == at::kFloat) {
    compute_ = weights_;
    return;
  }
  compute_.resize(weights_.size());
  for (size_t l = 0; l < weights_.size(); ++l) {
    if (weights_[l].expert_ids.empty()) continue;
    if (!compute_[l].gate_up_efd.defined()) {
      const auto options = weights_[l].gate_up_efd.options().dtype(options_.compute_dtype);
      compute_[l].gate_up_efd = at::empty(weights_[l].gate_up_efd.sizes(), options);
      compute_[l].down_edf = at::empty(weights_[l].down_edf.sizes(), options);
    }
    compute_[l].gate_up_efd.copy_(weights_[l].gate_up_efd);
    compute_[l].down_edf.copy_(weights_[l].down_edf);
  }
}

int64_t ExpertShard::ExpertsIn(int64_t layer) const {
  return static_cast<int64_t>(weights_[static_cast<size_t>(layer)].expert_ids.size());
}

at::Tensor ExpertShard::FirstProduct(int64_t layer, const Saved& saved) const {
  const at::Tensor& gate_up_efd = compute_[static_cast<size_t>(layer)].gate_up_efd;
  const at::Tensor x_nd = Gathered(saved.x_rd, saved.plan);
  at::Tensor h_nf = at::empty({saved.plan.pairs(), gate_up_efd.size(1)}, x_nd.options());
  ForEachExpert(RowsPerExpert(saved.plan), [&](int64_t e) {
    at::Tensor h_e = RowsOf(h_nf, saved.plan, e);
    MatmulTransposed(RowsOf(x_nd, saved.plan, e), gate_up_efd[e], h_e);
  });
  return h_nf;
}

at::Tensor ExpertShard::Forward(int64_t layer, RequestKey key, const at::Tensor& x_rd,
                                PairPlan plan, bool keep) {
  const auto l = static_cast<size_t>(layer);
  Saved saved{.x_rd = x_rd, .plan = std::move(plan)};
  if (saved.plan.pairs() == 0) {
    at::Tensor zero = at::zeros_like(x_rd);
    if (keep) saved_[l].insert_or_assign(key, std::move(saved));
    return zero;
  }
  saved.h_nf = FirstProduct(layer, saved);
  const at::Tensor& down_edf = compute_[l].down_edf;
  at::Tensor a_nf = at::empty({saved.plan.pairs(), down_edf.size(2)}, x_rd.options());
  kernels::SwiGlu(saved.h_nf, saved.plan.weight_n, a_nf);
  at::Tensor y_nd = at::empty({saved.plan.pairs(), x_rd.size(1)}, x_rd.options());
  const std::vector<int64_t> rows_e = RowsPerExpert(saved.plan);
  ForEachExpert(rows_e, [&](int64_t e) {
    at::Tensor y_e = RowsOf(y_nd, saved.plan, e);
    MatmulTransposed(RowsOf(a_nf, saved.plan, e), down_edf[e], y_e);
  });
  at::Tensor z_rd = SummedOverPairs(y_nd, saved.plan);
  if (keep) {
    for (size_t e = 0; e < rows_e.size(); ++e) load_[l][e] += rows_e[e];
    if (options_.recompute) saved.h_nf = at::Tensor();
    saved_[l].insert_or_assign(key, std::move(saved));
  }
  return z_rd;
}

absl::StatusOr<ExpertShard::RequestGradients> ExpertShard::Backward(int64_t layer, RequestKey key,
                                                                    const at::Tensor& dz_rd) {
  const auto l = static_cast<size_t>(layer);
  const auto found = saved_[l].find(key);
  if (found == saved_[l].end() || found->second.backward_done) {
    return absl::FailedPreconditionError("gradients came for rows that are not waiting for any");
  }
  Saved& saved = found->second;
  saved.backward_done = true;
  const PairPlan& plan = saved.plan;
  RequestGradients result;
  result.dweight_n = at::empty({plan.pairs()}, at::kFloat);
  if (plan.pairs() == 0) {
    result.dx_rd = at::zeros_like(dz_rd);
    return result;
  }
  if (options_.recompute) saved.h_nf = FirstProduct(layer, saved);
  const at::Tensor& gate_up_efd = compute_[l].gate_up_efd;
  const at::Tensor& down_edf = compute_[l].down_edf;
  const std::vector<int64_t> rows_e = RowsPerExpert(plan);
  const at::Tensor dz_nd = Gathered(dz_rd, plan);
  at::Tensor da_nf = at::empty({plan.pairs(), down_edf.size(2)}, dz_rd.options());
  ForEachExpert(rows_e, [&](int64_t e) {
    at::Tensor da_e = RowsOf(da_nf, plan, e);
    Matmul(RowsOf(dz_nd, plan, e), down_edf[e], da_e);
  });
  saved.scaled_a_nf = at::empty_like(da_nf);
  at::Tensor dweight_sorted = at::empty({plan.pairs()}, at::kFloat);
  kernels::SwiGluBackward(da_nf, saved.h_nf, plan.weight_n, saved.scaled_a_nf, dweight_sorted);
  at::Tensor dx_nd = at::empty_like(dz_nd);
  ForEachExpert(rows_e, [&](int64_t e) {
    at::Tensor dx_e = RowsOf(dx_nd, plan, e);
    Matmul(RowsOf(saved.h_nf, plan, e), gate_up_efd[e], dx_e);
  });
  result.dx_rd = SummedOverPairs(dx_nd, plan);
  const float* sorted = dweight_sorted.const_data_ptr<float>();
  const int64_t* original = plan.original_n.const_data_ptr<int64_t>();
  float* dweight = result.dweight_n.mutable_data_ptr<float>();
  for (int64_t n = 0; n < plan.pairs(); ++n) dweight[original[n]] = sorted[n];
  saved.dz_rd = dz_rd;
  return result;
}

void ExpertShard::FinishLayer(int64_t layer) {
  const auto l = static_cast<size_t>(layer);
  std::vector<int64_t> rows_e(static_cast<size_t>(ExpertsIn(layer)), 0);
  struct Gatherings {
    const Saved* saved;
    at::Tensor x_nd, dz_nd;
  };
  std::vector<Gatherings> requests;
  for (const auto& [key, saved] : saved_[l]) {
    if (!saved.backward_done || saved.plan.pairs() == 0) continue;
    requests.push_back(
        {&saved, Gathered(saved.x_rd, saved.plan), Gathered(saved.dz_rd, saved.plan)});
    const std::vector<int64_t> rows = RowsPerExpert(saved.plan);
    for (size_t e = 0; e < rows.size(); ++e) rows_e[e] += rows[e];
  }
  if (!requests.empty()) summed_[l] = true;
  ForEachExpert(rows_e, [&](int64_t e) {
    at::Tensor gate_up_df = gradients_[l].gate_up_efd[e];
    at::Tensor down_df = gradients_[l].down_edf[e];
    for (const Gatherings& request : requests) {
      const PairPlan& plan = request.saved->plan;
      const at::Tensor dh_e = RowsOf(request.saved->h_nf, plan, e);
      if (dh_e.size(0) == 0) continue;
      AddTransposedMatmul(dh_e, RowsOf(request.x_nd, plan, e), gate_up_df);
      AddTransposedMatmul(RowsOf(request.dz_nd, plan, e),
                          RowsOf(request.saved->scaled_a_nf, plan, e), down_df);
    }
  });
  saved_[l].clear();
}

void ExpertShard::Reset() {
  for (size_t l = 0; l < weights_.size(); ++l) {
    saved_[l].clear();
    std::fill(load_[l].begin(), load_[l].end(), 0);
    if (!summed_[l]) continue;
    gradients_[l].gate_up_efd.zero_();
    gradients_[l].down_edf.zero_();
    summed_[l] = false;
  }
}

}  // namespace pcmoe::model
