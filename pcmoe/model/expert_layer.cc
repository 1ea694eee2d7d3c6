// pcmoe/model/expert_layer.cc: see expert_layer.h.
#include "pcmoe/model/expert_layer.h"

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

at::Tensor ExpertLayer::FirstProduct(const ExpertMatrices& weights, const Saved& saved) {
  const at::Tensor x_nd = Gathered(saved.x_rd, saved.plan);
  at::Tensor h_nf =
      at::empty({saved.plan.pairs(), weights.gate_up_fd.front().size(0)}, x_nd.options());
  ForEachExpert(RowsPerExpert(saved.plan), [&](int64_t e) {
    at::Tensor h_e = RowsOf(h_nf, saved.plan, e);
    MatmulTransposed(RowsOf(x_nd, saved.plan, e), weights.gate_up_fd[static_cast<size_t>(e)], h_e);
  });
  return h_nf;
}

at::Tensor ExpertLayer::Forward(const ExpertMatrices& weights, RequestKey key,
                                const at::Tensor& x_rd, PairPlan plan, bool keep) {
  Saved saved{.x_rd = x_rd, .plan = std::move(plan)};
  if (saved.plan.pairs() == 0) {
    at::Tensor zero = at::zeros_like(x_rd);
    if (keep) saved_.insert_or_assign(key, std::move(saved));
    return zero;
  }
  saved.h_nf = FirstProduct(weights, saved);
  at::Tensor a_nf =
      at::empty({saved.plan.pairs(), weights.down_df.front().size(1)}, x_rd.options());
  kernels::SwiGlu(saved.h_nf, saved.plan.weight_n, a_nf);
  at::Tensor y_nd = at::empty({saved.plan.pairs(), x_rd.size(1)}, x_rd.options());
  ForEachExpert(RowsPerExpert(saved.plan), [&](int64_t e) {
    at::Tensor y_e = RowsOf(y_nd, saved.plan, e);
    MatmulTransposed(RowsOf(a_nf, saved.plan, e), weights.down_df[static_cast<size_t>(e)], y_e);
  });
  at::Tensor z_rd = SummedOverPairs(y_nd, saved.plan);
  if (keep) {
    if (recompute_) saved.h_nf = at::Tensor();
    saved_.insert_or_assign(key, std::move(saved));
  }
  return z_rd;
}

absl::StatusOr<ExpertLayer::RequestGradients> ExpertLayer::Backward(const ExpertMatrices& weights,
                                                                    RequestKey key,
                                                                    const at::Tensor& dz_rd) {
  const auto found = saved_.find(key);
  if (found == saved_.end() || found->second.backward_done) {
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
  if (recompute_) saved.h_nf = FirstProduct(weights, saved);
  const std::vector<int64_t> rows_e = RowsPerExpert(plan);
  const at::Tensor dz_nd = Gathered(dz_rd, plan);
  at::Tensor da_nf = at::empty({plan.pairs(), weights.down_df.front().size(1)}, dz_rd.options());
  ForEachExpert(rows_e, [&](int64_t e) {
    at::Tensor da_e = RowsOf(da_nf, plan, e);
    Matmul(RowsOf(dz_nd, plan, e), weights.down_df[static_cast<size_t>(e)], da_e);
  });
  saved.scaled_a_nf = at::empty_like(da_nf);
  at::Tensor dweight_sorted = at::empty({plan.pairs()}, at::kFloat);
  kernels::SwiGluBackward(da_nf, saved.h_nf, plan.weight_n, saved.scaled_a_nf, dweight_sorted);
  at::Tensor dx_nd = at::empty_like(dz_nd);
  ForEachExpert(rows_e, [&](int64_t e) {
    at::Tensor dx_e = RowsOf(dx_nd, plan, e);
    Matmul(RowsOf(saved.h_nf, plan, e), weights.gate_up_fd[static_cast<size_t>(e)], dx_e);
  });
  result.dx_rd = SummedOverPairs(dx_nd, plan);
  const float* sorted = dweight_sorted.const_data_ptr<float>();
  const int64_t* original = plan.original_n.const_data_ptr<int64_t>();
  float* dweight = result.dweight_n.mutable_data_ptr<float>();
  for (int64_t n = 0; n < plan.pairs(); ++n) dweight[original[n]] = sorted[n];
  saved.dz_rd = dz_rd;
  return result;
}

bool ExpertLayer::AddWeightGradients(ExpertMatrices& gradients) {
  std::vector<int64_t> rows_e(gradients.down_df.size(), 0);
  struct Gatherings {
    const Saved* saved;
    at::Tensor x_nd, dz_nd;
  };
  std::vector<Gatherings> requests;
  for (const auto& [key, saved] : saved_) {
    if (!saved.backward_done || saved.plan.pairs() == 0) continue;
    requests.push_back(
        {&saved, Gathered(saved.x_rd, saved.plan), Gathered(saved.dz_rd, saved.plan)});
    const std::vector<int64_t> rows = RowsPerExpert(saved.plan);
    for (size_t e = 0; e < rows.size(); ++e) rows_e[e] += rows[e];
  }
  ForEachExpert(rows_e, [&](int64_t e) {
    at::Tensor& gate_up_df = gradients.gate_up_fd[static_cast<size_t>(e)];
    at::Tensor& down_df = gradients.down_df[static_cast<size_t>(e)];
    for (const Gatherings& request : requests) {
      const PairPlan& plan = request.saved->plan;
      const at::Tensor dh_e = RowsOf(request.saved->h_nf, plan, e);
      if (dh_e.size(0) == 0) continue;
      AddTransposedMatmul(dh_e, RowsOf(request.x_nd, plan, e), gate_up_df);
      AddTransposedMatmul(RowsOf(request.dz_nd, plan, e),
                          RowsOf(request.saved->scaled_a_nf, plan, e), down_df);
    }
  });
  saved_.clear();
  return !requests.empty();
}

}  // namespace pcmoe::model
