// pcmoe/model/block.cc: see block.h.
#include "pcmoe/model/block.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/add.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/sum.h>

#include "pcmoe/model/kernels.h"
#include "pcmoe/model/linear.h"

namespace pcmoe::model {
namespace {

at::Tensor Norm(const at::Tensor& x_td, const at::Tensor& w_d, double eps, at::Tensor& rstd_t) {
  at::Tensor y_td = at::empty_like(x_td);
  rstd_t = at::empty({x_td.size(0)}, at::kFloat);
  kernels::RmsNorm(x_td, w_d, eps, y_td, rstd_t);
  return y_td;
}

// One tensor holding `parts` one after another; each part becomes a view of it.
at::Tensor Fuse(std::initializer_list<at::Tensor*> parts) {
  std::vector<at::Tensor> values;
  for (const at::Tensor* part : parts) values.push_back(*part);
  if (!values.front().defined()) return {};
  at::Tensor fused = at::cat(values, 0);
  int64_t begin = 0;
  for (at::Tensor* part : parts) {
    const int64_t rows = part->size(0);
    *part = fused.narrow(0, begin, rows);
    begin += rows;
  }
  return fused;
}

// The shared expert's sigmoid gate times its output, as the config wants.
at::Tensor SharedForward(const BlockWeights& weights, BlockState& state) {
  state.mlp_out_td = MlpForward(weights.mlp, state.h_td, state.mlp);
  state.gate_t = at::sigmoid(Linear(state.h_td, weights.shared_gate));
  return state.mlp_out_td * state.gate_t;
}

// Adds the shared expert's part of dL/dh.
void SharedBackward(const BlockWeights& weights, const at::Tensor& dout_td, BlockState& state,
                    BlockGradients& gradients, at::Tensor& dh_td) {
  const at::Tensor dgate_t =
      at::sum(dout_td * state.mlp_out_td, {1}, true) * state.gate_t * (1 - state.gate_t);
  AddWeightGradient(gradients.shared_gate, dgate_t, state.h_td);
  dh_td.add_(LinearBackward(dgate_t, weights.shared_gate));
  const at::Tensor dmlp_td = dout_td * state.gate_t;
  dh_td.add_(MlpBackward(weights.mlp, dmlp_td, state.mlp, gradients.mlp));
}

}  // namespace

BlockWeights FuseStorage(LayerParameters& layer) {
  BlockWeights fused;
  fused.input_norm = layer.input_norm_d;
  fused.post_norm = layer.post_norm_d;
  fused.attention.qkv = Fuse({&layer.q_hd, &layer.k_gd, &layer.v_gd});
  fused.attention.qkv_bias = Fuse({&layer.q_bias_h, &layer.k_bias_g, &layer.v_bias_g});
  fused.attention.o = layer.o_dh;
  fused.attention.o_bias = layer.o_bias_d;
  fused.attention.q_norm = layer.q_norm;
  fused.attention.k_norm = layer.k_norm;
  fused.router = layer.router_ed;
  fused.shared_gate = layer.shared_gate_1d;
  MlpParameters& mlp = layer.router_ed.defined() ? layer.shared : layer.dense;
  fused.mlp.gate_up = Fuse({&mlp.gate_fd, &mlp.up_fd});
  fused.mlp.down = mlp.down_df;
  return fused;
}

std::vector<BlockEntry> BlockEntries(const ModelConfig& config, int64_t layer,
                                     BlockWeights& block) {
  const int64_t width = config.hidden_size;
  const int64_t query = config.QueryWidth();
  const int64_t key = config.KeyWidth();
  const bool sparse = config.sparse_layers[static_cast<size_t>(layer)];
  const bool full = config.qk_norm == ModelConfig::QkNorm::kFull;
  std::vector<BlockEntry> entries;
  const auto add = [&](bool there, at::Tensor& tensor, std::vector<int64_t> shape, bool fp32,
                       std::vector<int64_t> rows = {}) {
    if (!there) return;
    const int64_t columns = shape.size() > 1 ? shape[1] : 1;
    if (rows.empty()) rows = {shape[0]};
    for (int64_t& part : rows) part *= columns;
    entries.push_back({&tensor, std::move(shape), fp32, std::move(rows)});
  };
  const std::vector<int64_t> qkv{query, key, key};
  const bool qk_norm = config.qk_norm != ModelConfig::QkNorm::kNone;
  const int64_t mlp = sparse ? config.shared_expert_size : config.dense_size;
  add(true, block.input_norm, {width}, true);
  add(true, block.post_norm, {width}, true);
  add(qk_norm, block.attention.q_norm, {full ? query : config.head_dim}, true);
  add(qk_norm, block.attention.k_norm, {full ? key : config.head_dim}, true);
  add(true, block.attention.qkv, {query + 2 * key, width}, false, qkv);
  add(config.attention_bias_qkv, block.attention.qkv_bias, {query + 2 * key}, false, qkv);
  add(true, block.attention.o, {width, query}, false);
  add(config.attention_bias_o, block.attention.o_bias, {width}, false);
  add(sparse, block.router, {config.num_experts, width}, false);
  add(sparse && config.HasSharedExpert(), block.shared_gate, {1, width}, false);
  add(mlp > 0, block.mlp.gate_up, {2 * mlp, width}, false);
  add(mlp > 0, block.mlp.down, {width, mlp}, false);
  return entries;
}

at::Tensor BlockForward(const ModelConfig& config, bool sparse, const BlockWeights& weights,
                        const RopeTable& rope, const BatchShape& shape, const at::Tensor& x_td,
                        BlockState& state) {
  state.x_td = x_td;
  const at::Tensor normed = Norm(x_td, weights.input_norm, config.rms_norm_eps, state.input_rstd_t);
  state.residual_td =
      AttentionForward(config, weights.attention, rope, shape, normed, state.attention);
  state.residual_td.add_(x_td);
  state.h_td = Norm(state.residual_td, weights.post_norm, config.rms_norm_eps, state.post_rstd_t);
  if (!sparse) return state.residual_td + MlpForward(weights.mlp, state.h_td, state.mlp);
  state.router = Route(config, Linear(state.h_td, weights.router));
  if (!config.HasSharedExpert()) return state.residual_td;
  return state.residual_td + SharedForward(weights, state);
}

at::Tensor BlockBackward(const ModelConfig& config, bool sparse, const BlockWeights& weights,
                         const RopeTable& rope, const BatchShape& shape, const at::Tensor& dout_td,
                         const ExpertInputGradients& experts,
                         const std::vector<float>& dprobability_e, BlockState& state,
                         BlockGradients& gradients) {
  at::Tensor dh_td;
  if (sparse) {
    const at::Tensor dlogits_te =
        RouteBackward(config, state.router, experts.dweights_tk, dprobability_e)
            .to(dout_td.scalar_type());
    AddWeightGradient(gradients.router, dlogits_te, state.h_td);
    dh_td = experts.dh_td + LinearBackward(dlogits_te, weights.router);
    if (config.HasSharedExpert()) SharedBackward(weights, dout_td, state, gradients, dh_td);
  } else {
    dh_td = MlpBackward(weights.mlp, dout_td, state.mlp, gradients.mlp);
  }
  at::Tensor dresidual_td = dout_td.clone();
  kernels::RmsNormBackward(dh_td, state.residual_td, weights.post_norm, state.post_rstd_t,
                           dresidual_td, gradients.post_norm);
  const at::Tensor dnormed = AttentionBackward(config, weights.attention, rope, shape, dresidual_td,
                                               state.attention, gradients.attention);
  at::Tensor& dx_td = dresidual_td;
  kernels::RmsNormBackward(dnormed, state.x_td, weights.input_norm, state.input_rstd_t, dx_td,
                           gradients.input_norm);
  state = BlockState();
  return dx_td;
}

}  // namespace pcmoe::model
