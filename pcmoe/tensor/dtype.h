// pcmoe/tensor/dtype.h: the names of number formats in safetensors files and in LibTorch.
#pragma once

#include <c10/core/ScalarType.h>

#include <string_view>

#include "pcmoe/base/status.h"

namespace pcmoe::tensor {

/// "F32" -> at::kFloat and so on: F64 F32 F16 BF16 I64 I32 I16 I8 U8 BOOL. INVALID_ARGUMENT names a
/// dtype that LibTorch does not have or that we do not read.
absl::StatusOr<at::ScalarType> ScalarTypeOf(std::string_view dtype);

/// The way back. INVALID_ARGUMENT names the LibTorch type.
absl::StatusOr<std::string_view> DtypeNameOf(at::ScalarType type);

}  // namespace pcmoe::tensor
