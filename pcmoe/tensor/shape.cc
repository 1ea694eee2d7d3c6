// pcmoe/tensor/shape.cc: see shape.h.
#include "pcmoe/tensor/shape.h"

#include "absl/strings/str_join.h"

namespace pcmoe::tensor {

std::string ShapeText(at::IntArrayRef dims) {
  return absl::StrCat("[", absl::StrJoin(dims, ", "), "]");
}

absl::Status RequireShape(const at::Tensor& tensor, at::IntArrayRef dims, std::string_view name) {
  if (!tensor.defined()) {
    return absl::InvalidArgumentError(
        absl::StrCat(std::string(name), " is missing; its shape should be ", ShapeText(dims)));
  }
  bool same = tensor.dim() == static_cast<int64_t>(dims.size());
  for (size_t i = 0; same && i < dims.size(); ++i) {
    same = dims[i] == -1 || dims[i] == tensor.size(static_cast<int64_t>(i));
  }
  if (same) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(std::string(name), " has shape ",
                                                 ShapeText(tensor.sizes()), "; it should be ",
                                                 ShapeText(dims)));
}

absl::Status RequireType(const at::Tensor& tensor, at::ScalarType type, std::string_view name) {
  if (!tensor.defined()) {
    return absl::InvalidArgumentError(absl::StrCat(std::string(name), " is missing"));
  }
  if (tensor.scalar_type() == type) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(std::string(name), " holds ",
                                                 c10::toString(tensor.scalar_type()),
                                                 " numbers; it should hold ", c10::toString(type)));
}

}  // namespace pcmoe::tensor
