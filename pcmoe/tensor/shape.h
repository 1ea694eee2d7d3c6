// pcmoe/tensor/shape.h: checks that a tensor is what a function expects, as a Status.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <string_view>

#include "pcmoe/base/status.h"

namespace pcmoe::tensor {

/// "[2, 3]", for messages.
std::string ShapeText(at::IntArrayRef dims);

/// INVALID_ARGUMENT, naming `name` and both shapes, unless `tensor` is defined and has exactly
/// `dims`; a dimension of -1 in `dims` matches any size.
absl::Status RequireShape(const at::Tensor& tensor, at::IntArrayRef dims, std::string_view name);

/// INVALID_ARGUMENT, naming `name` and both types, unless `tensor` is defined and has `type`.
absl::Status RequireType(const at::Tensor& tensor, at::ScalarType type, std::string_view name);

}  // namespace pcmoe::tensor
