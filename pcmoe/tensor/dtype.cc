// pcmoe/tensor/dtype.cc: see dtype.h.
#include "pcmoe/tensor/dtype.h"

#include <array>
#include <utility>

namespace pcmoe::tensor {
namespace {

constexpr std::array<std::pair<std::string_view, at::ScalarType>, 10> kDtypes{{
    {"F64", at::ScalarType::Double},
    {"F32", at::ScalarType::Float},
    {"F16", at::ScalarType::Half},
    {"BF16", at::ScalarType::BFloat16},
    {"I64", at::ScalarType::Long},
    {"I32", at::ScalarType::Int},
    {"I16", at::ScalarType::Short},
    {"I8", at::ScalarType::Char},
    {"U8", at::ScalarType::Byte},
    {"BOOL", at::ScalarType::Bool},
}};

}  // namespace

absl::StatusOr<at::ScalarType> ScalarTypeOf(std::string_view dtype) {
  for (const auto& [name, type] : kDtypes) {
    if (name == dtype) return type;
  }
  return absl::InvalidArgumentError(absl::StrCat("dtype ", std::string(dtype),
                                                 " cannot be read; F64, F32, F16, BF16 and whole "
                                                 "numbers can"));
}

absl::StatusOr<std::string_view> DtypeNameOf(at::ScalarType type) {
  for (const auto& [name, candidate] : kDtypes) {
    if (candidate == type) return name;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("tensors of type ", c10::toString(type), " cannot be written to safetensors"));
}

}  // namespace pcmoe::tensor
