// pcmoe/tensor/finite.h: whether a tensor holds numbers only.
#pragma once

#include <ATen/core/Tensor.h>

namespace pcmoe::tensor {

/// False when any element of a contiguous fp32 or bf16 CPU tensor is infinite or NaN.
bool AllFinite(const at::Tensor& x);

}  // namespace pcmoe::tensor
