// pcmoe/model/attention.h: causal self-attention of one layer, forward and backward.
// Shape legend: T = B x S tokens, D hidden width, H query width, G key width.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "pcmoe/model/config.h"

namespace pcmoe::model {

/// How the T rows of a micro-batch lie: B sequences of S tokens, and documents within them.
struct BatchShape {
  int64_t sequences = 0;   ///< B
  int64_t length = 0;      ///< S
  at::Tensor positions_t;  ///< int32 [T]; starts again at 0 with each isolated document.
  /// Per sequence, where its documents start (first is 0), when documents must not see each other;
  /// empty: every token sees all before it in its sequence.
  std::vector<std::vector<int64_t>> document_starts;
};

/// cos and sin of the rotary embedding, float [positions, head_dim/2].
struct RopeTable {
  at::Tensor cos, sin;
  static RopeTable Create(const ModelConfig& config, int64_t positions);
};

/// Weights in the compute dtype: q, k, v as one product [H+2G, D]; norms in fp32.
struct AttentionWeights {
  at::Tensor qkv, qkv_bias, o, o_bias, q_norm, k_norm;
};
/// Where gradients are added, fp32, same shapes.
using AttentionGradients = AttentionWeights;

/// What backward needs of a forward.
struct AttentionState {
  at::Tensor x_td;            // the normed input
  at::Tensor qkv_t;           // raw products [T, H+2G]
  at::Tensor q_rstd, k_rstd;  // of the q/k norms
  at::Tensor q, k, v;         // leaves of the graph, [B, heads, S, head_dim] views
  at::Tensor out_th;          // attention output, in the graph
};

/// x_td -> [T, D]. Thread-safe for distinct states.
at::Tensor AttentionForward(const ModelConfig& config, const AttentionWeights& weights,
                            const RopeTable& rope, const BatchShape& shape, const at::Tensor& x_td,
                            AttentionState& state);

/// dL/dx from dL/dy; adds the weights' gradients. The state is used up.
at::Tensor AttentionBackward(const ModelConfig& config, const AttentionWeights& weights,
                             const RopeTable& rope, const BatchShape& shape,
                             const at::Tensor& dy_td, AttentionState& state,
                             AttentionGradients& gradients);

}  // namespace pcmoe::model
