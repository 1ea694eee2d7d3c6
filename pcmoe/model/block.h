// pcmoe/model/block.h: one layer's backbone: x -> (residual, h, routing), the experts' input and
// gates; and back. The experts are outside; see backbone.h for the order of a step. Shape legend: T
// tokens, D hidden width.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "pcmoe/model/attention.h"
#include "pcmoe/model/mlp.h"
#include "pcmoe/model/parameters.h"
#include "pcmoe/model/router.h"

namespace pcmoe::model {

/// Compute-dtype copies of a layer's weights (norms in fp32), fused where one product does.
struct BlockWeights {
  at::Tensor input_norm, post_norm, router, shared_gate;
  AttentionWeights attention;
  MlpWeights mlp;  ///< The shared expert, or the dense MLP.
};
using BlockGradients = BlockWeights;  ///< fp32.

/// Fused storage for a layer: q|k|v and gate|up become views of one tensor, so that a product needs
/// no copy and `layer` keeps the names. Values are kept. Call once.
BlockWeights FuseStorage(LayerParameters& layer);

/// One tensor of a block: where it is, the shape it has, and whether it is fp32 whatever the
/// compute dtype (norms). `parts`: elements of the weights that are fused in it, one after another.
struct BlockEntry {
  at::Tensor* tensor;
  std::vector<int64_t> shape;
  bool fp32;
  std::vector<int64_t> parts;
};
/// The tensors that a layer's block has, in the one order in which they travel.
std::vector<BlockEntry> BlockEntries(const ModelConfig& config, int64_t layer, BlockWeights& block);

/// What a segment leaves for its backward.
struct BlockState {
  at::Tensor x_td, input_rstd_t;        // x_td stays with recompute; the rest is made again
  at::Tensor residual_td, post_rstd_t;  // after attention
  at::Tensor h_td;                      // the experts' input
  AttentionState attention;
  MlpState mlp;
  at::Tensor mlp_out_td, gate_t;  // shared expert's output and its sigmoid gate
  RouterState router;
};

/// The segment forward. The layer's output is `returned + experts(h)`; for a layer that is not
/// sparse it is the returned tensor alone.
at::Tensor BlockForward(const ModelConfig& config, bool sparse, const BlockWeights& weights,
                        const RopeTable& rope, const BatchShape& shape, const at::Tensor& x_td,
                        BlockState& state);

/// dL/dx from dL/d(output) and, for a sparse layer, what came back from the experts. Uses up
/// `state`.
at::Tensor BlockBackward(const ModelConfig& config, bool sparse, const BlockWeights& weights,
                         const RopeTable& rope, const BatchShape& shape, const at::Tensor& dout_td,
                         const ExpertInputGradients& experts,
                         const std::vector<float>& dprobability_e, BlockState& state,
                         BlockGradients& gradients);

}  // namespace pcmoe::model
