// pcmoe/model/mlp.h: SwiGLU of the backbone: shared experts, and layers that are not sparse.
#pragma once

#include <ATen/core/Tensor.h>

namespace pcmoe::model {

/// Compute-dtype weights; gate and up rows as one [2F, D] product.
struct MlpWeights {
  at::Tensor gate_up, down;
};
using MlpGradients = MlpWeights;  ///< fp32.

struct MlpState {
  at::Tensor x_td, h_tf;
};

/// down(silu(gate x) * up x).
at::Tensor MlpForward(const MlpWeights& weights, const at::Tensor& x_td, MlpState& state);

/// dL/dx from dL/dy; adds the weights' gradients. The state is used up.
at::Tensor MlpBackward(const MlpWeights& weights, const at::Tensor& dy_td, MlpState& state,
                       MlpGradients& gradients);

}  // namespace pcmoe::model
