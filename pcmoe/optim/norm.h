// pcmoe/optim/norm.h: gradient norms in double precision, and the clip that follows from them.
#pragma once

#include <ATen/core/Tensor.h>

namespace pcmoe::optim {

/// Sum of the squares of a dense fp32 tensor, in double; infinite or NaN exactly when an element
/// is. Repeatable: the order of the sum is fixed, whatever the number of threads.
double SumOfSquares(const at::Tensor& x);

/// torch.nn.utils.clip_grad_norm_'s factor: min(1, max_norm / (norm + 1e-6)); 1 when max_norm is 0
/// (off).
double ClipFactor(double norm, double max_norm);

}  // namespace pcmoe::optim
