// pcmoe/model/linear.h: products with weights, and their gradients, in the compute dtype.
#pragma once

#include <ATen/core/Tensor.h>

namespace pcmoe::model {

/// x w' (+ bias when defined); w as torch's Linear: [out, in].
at::Tensor Linear(const at::Tensor& x_td, const at::Tensor& w, const at::Tensor& bias = {});

/// dL/dx = dy w of Linear.
at::Tensor LinearBackward(const at::Tensor& dy, const at::Tensor& w);

/// gradient (fp32 [out, in]) += dy' x, with the product in the inputs' dtype; nothing when it is
/// undefined (a frozen weight).
void AddWeightGradient(at::Tensor& gradient, const at::Tensor& dy, const at::Tensor& x);

/// gradient (fp32 [out]) += column sums of dy; nothing when it is undefined.
void AddBiasGradient(at::Tensor& gradient, const at::Tensor& dy);

/// `weight` in `dtype`, copied into `copy` (allocated at first); the weight itself when it has it.
void RefreshCopy(const at::Tensor& weight, at::ScalarType dtype, at::Tensor& copy);

}  // namespace pcmoe::model
