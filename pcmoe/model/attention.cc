// pcmoe/model/attention.cc: see attention.h.
#include "pcmoe/model/attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/sin.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "pcmoe/model/kernels.h"
#include "pcmoe/model/linear.h"

namespace pcmoe::model {
namespace {

// Columns of the raw products, normed (all heads at once, or each by itself), clipped and turned
// into `out_tx`, which may be strided.
void NormClipTurn(const ModelConfig& config, const at::Tensor& raw_tx, const at::Tensor& norm,
                  const RopeTable& rope, const BatchShape& shape, int64_t heads, at::Tensor& rstd,
                  at::Tensor& out_tx) {
  at::Tensor in = raw_tx;
  if (norm.defined()) {
    rstd = at::empty({raw_tx.numel() / norm.size(0)}, at::kFloat);
    kernels::RmsNorm(raw_tx, norm, config.rms_norm_eps, out_tx, rstd);
    in = out_tx;
  }
  if (config.clip_qkv > 0) in = in.clamp(-config.clip_qkv, config.clip_qkv);
  kernels::Rope(in, out_tx, rope.cos, rope.sin, shape.positions_t, heads, false);
}

// The gradient back through turn, clip and norm, into `draw_tx` (columns of dqkv).
void NormClipTurnBackward(const ModelConfig& config, const at::Tensor& dturned_tx,
                          const at::Tensor& raw_tx, const at::Tensor& norm, const RopeTable& rope,
                          const BatchShape& shape, int64_t heads, const at::Tensor& rstd,
                          at::Tensor& draw_tx, at::Tensor& dnorm) {
  kernels::Rope(dturned_tx, draw_tx, rope.cos, rope.sin, shape.positions_t, heads, true);
  if (config.clip_qkv > 0) {
    at::Tensor unclipped = raw_tx;
    if (norm.defined()) {
      unclipped = at::empty(raw_tx.sizes(), raw_tx.options());
      at::Tensor again = at::empty_like(rstd);
      kernels::RmsNorm(raw_tx, norm, config.rms_norm_eps, unclipped, again);
    }
    draw_tx.mul_(unclipped.abs().le(config.clip_qkv));
  }
  if (norm.defined()) {
    kernels::RmsNormBackward(draw_tx, raw_tx, norm, rstd, draw_tx, dnorm,
                             kernels::Gradient::kWrite);
  }
}

// Columns of T rows -> [B, heads, S, head_dim] without a copy.
at::Tensor Heads(const at::Tensor& columns, const BatchShape& shape, int64_t heads) {
  return columns.unflatten(0, {shape.sequences, shape.length})
      .unflatten(2, {heads, columns.size(1) / heads})
      .transpose(1, 2);
}

at::Tensor Repeat(const at::Tensor& k, int64_t times) {
  if (times == 1) return k;
  const auto sizes = k.sizes();
  return k.unsqueeze(2)
      .expand({sizes[0], sizes[1], times, sizes[2], sizes[3]})
      .reshape({sizes[0], sizes[1] * times, sizes[2], sizes[3]});
}

at::Tensor Attend(const ModelConfig& config, const at::Tensor& q, const at::Tensor& k,
                  const at::Tensor& v) {
  const int64_t times = config.num_heads / config.num_kv_heads;
  return at::scaled_dot_product_attention(q, Repeat(k, times), Repeat(v, times), std::nullopt, 0.0,
                                          /*is_causal=*/true,
                                          1.0 / std::sqrt(static_cast<double>(config.head_dim)));
}

// Every document by itself: causal attention over slices, no mask tensor.
at::Tensor AttendDocuments(const ModelConfig& config, const BatchShape& shape, const at::Tensor& q,
                           const at::Tensor& k, const at::Tensor& v) {
  if (shape.document_starts.empty()) return Attend(config, q, k, v);
  std::vector<at::Tensor> sequences;
  for (int64_t b = 0; b < shape.sequences; ++b) {
    const std::vector<int64_t>& starts = shape.document_starts[static_cast<size_t>(b)];
    std::vector<at::Tensor> documents;
    for (size_t d = 0; d < starts.size(); ++d) {
      const int64_t end = d + 1 < starts.size() ? starts[d + 1] : shape.length;
      const auto slice = [&](const at::Tensor& x) {
        return x.narrow(0, b, 1).narrow(2, starts[d], end - starts[d]);
      };
      documents.push_back(Attend(config, slice(q), slice(k), slice(v)));
    }
    sequences.push_back(at::cat(documents, 2));
  }
  return at::cat(sequences, 0);
}

}  // namespace

RopeTable RopeTable::Create(const ModelConfig& config, int64_t positions) {
  const int64_t half = config.head_dim / 2;
  // As transformers: 1 / theta^(2i/d) and the product with the position, both in fp32.
  const at::Tensor exponent =
      at::arange(0, config.head_dim, 2, at::kLong).to(at::kFloat) / static_cast<double>(2 * half);
  const at::Tensor frequency = at::pow(config.rope_theta, exponent).reciprocal();
  const at::Tensor angle = at::outer(at::arange(positions, at::kLong).to(at::kFloat), frequency);
  return {at::cos(angle).contiguous(), at::sin(angle).contiguous()};
}

at::Tensor AttentionForward(const ModelConfig& config, const AttentionWeights& weights,
                            const RopeTable& rope, const BatchShape& shape, const at::Tensor& x_td,
                            AttentionState& state) {
  state.x_td = x_td;
  state.qkv_t = Linear(x_td, weights.qkv, weights.qkv_bias);
  const int64_t rows = x_td.size(0);
  const int64_t h = config.QueryWidth();
  const int64_t g = config.KeyWidth();
  at::Tensor qk = at::empty({rows, h + g}, x_td.options());
  at::Tensor q_th = qk.narrow(1, 0, h);
  at::Tensor k_tg = qk.narrow(1, h, g);
  NormClipTurn(config, state.qkv_t.narrow(1, 0, h), weights.q_norm, rope, shape, config.num_heads,
               state.q_rstd, q_th);
  NormClipTurn(config, state.qkv_t.narrow(1, h, g), weights.k_norm, rope, shape,
               config.num_kv_heads, state.k_rstd, k_tg);
  at::Tensor v_tg = state.qkv_t.narrow(1, h + g, g);
  if (config.clip_qkv > 0) v_tg = v_tg.clamp(-config.clip_qkv, config.clip_qkv);
  {
    const at::AutoGradMode grad(true);
    state.q = Heads(q_th, shape, config.num_heads).detach().requires_grad_();
    state.k = Heads(k_tg, shape, config.num_kv_heads).detach().requires_grad_();
    state.v = Heads(v_tg, shape, config.num_kv_heads).detach().requires_grad_();
    state.out_th = AttendDocuments(config, shape, state.q, state.k, state.v)
                       .transpose(1, 2)
                       .flatten(0, 1)
                       .flatten(1, 2);
  }
  return Linear(state.out_th.detach(), weights.o, weights.o_bias);
}

at::Tensor AttentionBackward(const ModelConfig& config, const AttentionWeights& weights,
                             const RopeTable& rope, const BatchShape& shape,
                             const at::Tensor& dy_td, AttentionState& state,
                             AttentionGradients& gradients) {
  AddWeightGradient(gradients.o, dy_td, state.out_th.detach());
  AddBiasGradient(gradients.o_bias, dy_td);
  const at::Tensor dout_th = LinearBackward(dy_td, weights.o);
  const auto d = torch::autograd::grad({state.out_th}, {state.q, state.k, state.v}, {dout_th});

  const int64_t rows = dy_td.size(0);
  const int64_t h = config.QueryWidth();
  const int64_t g = config.KeyWidth();
  const auto columns = [&](const at::Tensor& x, int64_t width) {
    return x.transpose(1, 2).reshape({rows, width});
  };
  at::Tensor dqkv = at::empty({rows, h + 2 * g}, dy_td.options());
  at::Tensor dq_out = dqkv.narrow(1, 0, h);
  at::Tensor dk_out = dqkv.narrow(1, h, g);
  at::Tensor dv_out = dqkv.narrow(1, h + g, g);
  NormClipTurnBackward(config, columns(d[0], h), state.qkv_t.narrow(1, 0, h), weights.q_norm, rope,
                       shape, config.num_heads, state.q_rstd, dq_out, gradients.q_norm);
  NormClipTurnBackward(config, columns(d[1], g), state.qkv_t.narrow(1, h, g), weights.k_norm, rope,
                       shape, config.num_kv_heads, state.k_rstd, dk_out, gradients.k_norm);
  dv_out.copy_(columns(d[2], g));
  if (config.clip_qkv > 0) {
    dv_out.mul_(state.qkv_t.narrow(1, h + g, g).abs().le(config.clip_qkv));
  }
  AddWeightGradient(gradients.qkv, dqkv, state.x_td);
  AddBiasGradient(gradients.qkv_bias, dqkv);
  at::Tensor dx_td = LinearBackward(dqkv, weights.qkv);
  state = AttentionState();
  return dx_td;
}

}  // namespace pcmoe::model
