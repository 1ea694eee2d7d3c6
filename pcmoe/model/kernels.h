// pcmoe/model/kernels.h: fused element-wise loops for CPU tensors, chosen by CPU feature at run
// time. Shape legend: R rows, D width, F expert width, N (row, expert) pairs, V vocabulary.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>

namespace pcmoe::model::kernels {

/// The feature level in use: "avx512", "avx2" or "baseline". PCMOE_CPU=avx2 or baseline in the
/// environment asks for a lower one (for tests, and for parties with mixed machines).
std::string_view ActiveLevel();

// All tensors are contiguous CPU tensors, float or bfloat16 alike; weights, scales and sums are
// float. Rows are spread over at::get_num_threads() threads; results do not depend on their number
// except for sums over rows (dw), which do.

/// y = x * rstd * w, rstd = 1 / sqrt(mean(x^2) + eps). Rows may be strided views and hold several
/// groups of w's width, each normed by itself; fills rstd (float, [groups, R]).
void RmsNorm(const at::Tensor& x_rd, const at::Tensor& w_d, double eps, at::Tensor& y_rd,
             at::Tensor& rstd_gr);
/// What becomes of RmsNormBackward's dx.
enum class Gradient { kAdd, kWrite };
/// dx += (or =) d(RmsNorm)/dx applied to dy; dw += its weight's gradient (float [D]; undefined:
/// not wanted). Rows and groups as RmsNorm's; with kWrite dx may be dy itself.
void RmsNormBackward(const at::Tensor& dy_rd, const at::Tensor& x_rd, const at::Tensor& w_d,
                     const at::Tensor& rstd_gr, at::Tensor& dx_rd, at::Tensor& dw_d,
                     Gradient gradient = Gradient::kAdd);
/// Rotary embedding of `heads` heads (rotate_half convention) of rows that may be strided views;
/// cos, sin: float [positions, head_dim/2]. `inverse` turns back (the gradient). In place allowed.
void Rope(const at::Tensor& in_rd, at::Tensor& out_rd, const at::Tensor& cos, const at::Tensor& sin,
          const at::Tensor& positions_r, int64_t heads, bool inverse);
/// a = scale * silu(u) * v with h = [u | v] ([N, 2F]); scale_n float [N] or undefined (1).
void SwiGlu(const at::Tensor& h_nf, const at::Tensor& scale_n, at::Tensor& a_nf);
/// Given da = dL/da' (a' unscaled), replaces h by scale * dL/dh, writes scale * a' and
/// dscale_n = <da, a'> (undefined: not wanted). Source: DESIGN's owner formulas.
void SwiGluBackward(const at::Tensor& da_nf, at::Tensor& h_nf, const at::Tensor& scale_n,
                    at::Tensor& scaled_a_nf, at::Tensor& dscale_n);
/// out[n] = in[index[n]]; index int32 [N].
void Gather(const at::Tensor& in_rd, const at::Tensor& index_n, at::Tensor& out_nd);
/// out[r] = sum of in[positions[p]] for p in [offsets[r], offsets[r+1]), in that order, fp32 sums.
void GatherSum(const at::Tensor& in_nd, const at::Tensor& offsets_r1, const at::Tensor& positions_n,
               at::Tensor& out_rd);
/// loss[r] = cross entropy of logits[r] against labels[r] (int64; negative: ignored, 0); logits are
/// replaced by scale * (softmax - onehot).
void CrossEntropy(at::Tensor& logits_rv, const at::Tensor& labels_r, double scale,
                  at::Tensor& loss_r);
/// target[index[i]] += rows[i]; the indices (int64) are distinct.
void ScatterAdd(const at::Tensor& rows_rd, const at::Tensor& index_r, at::Tensor& target_td);

}  // namespace pcmoe::model::kernels
