// pcmoe/model/mlp.cc: see mlp.h.
#include "pcmoe/model/mlp.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include "pcmoe/model/kernels.h"
#include "pcmoe/model/linear.h"

namespace pcmoe::model {

at::Tensor MlpForward(const MlpWeights& weights, const at::Tensor& x_td, MlpState& state) {
  state.x_td = x_td;
  state.h_tf = Linear(x_td, weights.gate_up);
  at::Tensor a_tf = at::empty({x_td.size(0), weights.down.size(1)}, x_td.options());
  kernels::SwiGlu(state.h_tf, {}, a_tf);
  return Linear(a_tf, weights.down);
}

at::Tensor MlpBackward(const MlpWeights& weights, const at::Tensor& dy_td, MlpState& state,
                       MlpGradients& gradients) {
  const at::Tensor da_tf = LinearBackward(dy_td, weights.down);
  at::Tensor a_tf = at::empty_like(da_tf);
  at::Tensor no_scale_gradient;
  kernels::SwiGluBackward(da_tf, state.h_tf, {}, a_tf, no_scale_gradient);
  AddWeightGradient(gradients.down, dy_td, a_tf);
  AddWeightGradient(gradients.gate_up, state.h_tf, state.x_td);
  at::Tensor dx_td = LinearBackward(state.h_tf, weights.gate_up);
  state = MlpState();
  return dx_td;
}

}  // namespace pcmoe::model
