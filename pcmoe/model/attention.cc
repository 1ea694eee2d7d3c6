// pcmoe/model/attention.cc: see attention.h.
#include "pcmoe/model/attention.h"

#include <ATen/core/grad_mode.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "pcmoe/model/kernels.h"
#include "pcmoe/model/linear.h"

namespace pcmoe::model {
namespace {

// Norm (over all heads at once, or each head by itself) of the q or k columns; a contiguous copy.
at::Tensor NormColumns(const ModelConfig& config, const at::Tensor& raw, const at::Tensor& norm,
                       at::Tensor& rstd) {
  const at::Tensor rows = raw.contiguous().view({-1, norm.size(0)});
  at::Tensor normed = at::empty_like(rows);
  rstd = at::empty({rows.size(0)}, at::kFloat);
  kernels::RmsNorm(rows, norm, config.rms_norm_eps, normed, rstd);
  return normed.view(raw.sizes());
}

// q, k, v as attention wants them: normed, clipped; rope still to come. Views where nothing changed.
struct Projections {
  at::Tensor q_th, k_tg, v_tg;
};
Projections SplitAndNorm(const ModelConfig& config, const AttentionWeights& weights,
                         AttentionState& state) {
  const int64_t h = config.QueryWidth();
  const int64_t g = config.KeyWidth();
  Projections p{state.qkv_t.narrow(1, 0, h), state.qkv_t.narrow(1, h, g),
                state.qkv_t.narrow(1, h + g, g)};
  if (weights.q_norm.defined()) {
    p.q_th = NormColumns(config, p.q_th, weights.q_norm, state.q_rstd);
    p.k_tg = NormColumns(config, p.k_tg, weights.k_norm, state.k_rstd);
  }
  if (config.clip_qkv > 0) {
    p.q_th = p.q_th.clamp(-config.clip_qkv, config.clip_qkv);
    p.k_tg = p.k_tg.clamp(-config.clip_qkv, config.clip_qkv);
    p.v_tg = p.v_tg.clamp(-config.clip_qkv, config.clip_qkv);
  }
  return p;
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

// Gradient through clip and norm of the q or k columns, written into dqkv's columns.
void NormColumnsBackward(const at::Tensor& raw, const at::Tensor& norm, const at::Tensor& rstd,
                         double clip, at::Tensor dnormed, at::Tensor out, at::Tensor& dnorm) {
  const at::Tensor rows = raw.contiguous().view({-1, norm.size(0)});
  if (clip > 0) {
    const at::Tensor normed = rows * rstd.unsqueeze(1) * norm;
    dnormed = dnormed * normed.abs().le(clip).view(raw.sizes());
  }
  at::Tensor draw = at::zeros_like(rows);
  kernels::RmsNormBackward(dnormed.contiguous().view(rows.sizes()), rows, norm, rstd, draw, dnorm);
  out.copy_(draw.view(raw.sizes()));
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
  const Projections p = SplitAndNorm(config, weights, state);
  const int64_t rows = x_td.size(0);
  at::Tensor qk = at::empty({rows, config.QueryWidth() + config.KeyWidth()}, x_td.options());
  at::Tensor q_th = qk.narrow(1, 0, config.QueryWidth());
  at::Tensor k_tg = qk.narrow(1, config.QueryWidth(), config.KeyWidth());
  kernels::Rope(p.q_th, q_th, rope.cos, rope.sin, shape.positions_t, config.num_heads, false);
  kernels::Rope(p.k_tg, k_tg, rope.cos, rope.sin, shape.positions_t, config.num_kv_heads, false);
  {
    const at::AutoGradMode grad(true);
    state.q = Heads(q_th, shape, config.num_heads).detach().requires_grad_();
    state.k = Heads(k_tg, shape, config.num_kv_heads).detach().requires_grad_();
    state.v = Heads(p.v_tg, shape, config.num_kv_heads).detach().requires_grad_();
    state.out_th =
        AttendDocuments(config, shape, state.q, state.k, state.v).transpose(1, 2).flatten(0, 1)
            .flatten(1, 2);
  }
  return Linear(state.out_th.detach(), weights.o, weights.o_bias);
}

at::Tensor AttentionBackward(const ModelConfig& config, const AttentionWeights& weights,
                             const RopeTable& rope, const BatchShape& shape, const at::Tensor& dy_td,
                             AttentionState& state, AttentionGradients& gradients) {
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
  kernels::Rope(columns(d[0], h), dq_out, rope.cos, rope.sin, shape.positions_t, config.num_heads,
                true);
  kernels::Rope(columns(d[1], g), dk_out, rope.cos, rope.sin, shape.positions_t,
                config.num_kv_heads, true);
  dv_out.copy_(columns(d[2], g));
  const at::Tensor q_raw = state.qkv_t.narrow(1, 0, h);
  const at::Tensor k_raw = state.qkv_t.narrow(1, h, g);
  if (weights.q_norm.defined()) {
    NormColumnsBackward(q_raw, weights.q_norm, state.q_rstd, config.clip_qkv, dq_out.contiguous(),
                        dq_out, gradients.q_norm);
    NormColumnsBackward(k_raw, weights.k_norm, state.k_rstd, config.clip_qkv, dk_out.contiguous(),
                        dk_out, gradients.k_norm);
  } else if (config.clip_qkv > 0) {
    dq_out.mul_(q_raw.abs().le(config.clip_qkv));
    dk_out.mul_(k_raw.abs().le(config.clip_qkv));
  }
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
