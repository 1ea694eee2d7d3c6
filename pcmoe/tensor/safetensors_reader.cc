// pcmoe/tensor/safetensors_reader.cc: the reader of safetensors.h.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>

#include "pcmoe/tensor/dtype.h"
#include "pcmoe/tensor/safetensors.h"
#include "pcmoe/tensor/shape.h"

namespace pcmoe::tensor {
namespace {

// Numbers converted at a time: the staging buffer stays within the second-level cache.
constexpr int64_t kStageNumbers = 1 << 17;

bool Convertible(at::ScalarType from, at::ScalarType to) {
  return from == to || (c10::isFloatingType(from) && c10::isFloatingType(to));
}

// `bytes` need not be aligned for their type, so they go through a buffer that is.
void CopyConverted(const uint8_t* bytes, at::ScalarType type, const at::Tensor& flat) {
  const int64_t width = static_cast<int64_t>(c10::elementSize(type));
  const at::Tensor stage =
      at::empty({std::min(kStageNumbers, flat.numel())}, at::TensorOptions().dtype(type));
  for (int64_t done = 0; done < flat.numel(); done += kStageNumbers) {
    const int64_t count = std::min(kStageNumbers, flat.numel() - done);
    std::memcpy(stage.mutable_data_ptr(), bytes + done * width, static_cast<size_t>(count * width));
    flat.narrow(0, done, count).copy_(stage.narrow(0, 0, count));
  }
}

}  // namespace

absl::StatusOr<SafetensorsReader> SafetensorsReader::Open(const std::filesystem::path& path) {
  PCMOE_ASSIGN_OR_RETURN(base::MappedFile file, base::MappedFile::Open(path));
  absl::StatusOr<SafetensorsHeader> header = ParseSafetensorsHeader(file.bytes());
  if (!header.ok()) return WithContext(header.status(), path.string());
  return SafetensorsReader(path, std::move(file), *std::move(header));
}

absl::StatusOr<const TensorEntry*> SafetensorsReader::Find(std::string_view name) const {
  const auto found = header_.tensors.find(std::string(name));
  if (found != header_.tensors.end()) return &found->second;
  return absl::InvalidArgumentError(
      absl::StrCat(path_.string(), ": has no tensor ", std::string(name)));
}

absl::Status SafetensorsReader::Copy(std::string_view name, const TensorEntry& entry,
                                     at::IntArrayRef shape, uint64_t begin,
                                     const at::Tensor& destination) const {
  const auto fail = [&](std::string_view what) {
    return absl::InvalidArgumentError(
        absl::StrCat(path_.string(), ": ", std::string(name), " ", std::string(what)));
  };
  const absl::StatusOr<at::ScalarType> type = ScalarTypeOf(entry.dtype);
  if (!type.ok()) return fail(absl::StrCat("cannot be used: ", type.status().message()));
  if (!destination.defined() || destination.sizes() != shape) {
    return fail(absl::StrCat("has shape ", ShapeText(shape), "; ",
                             destination.defined() ? ShapeText(destination.sizes()) : "none",
                             " is wanted"));
  }
  if (!Convertible(*type, destination.scalar_type())) {
    return fail(absl::StrCat("holds ", entry.dtype, " numbers, which do not convert to ",
                             c10::toString(destination.scalar_type())));
  }
  if (destination.numel() == 0) return absl::OkStatus();
  const at::NoGradGuard no_grad;
  const uint8_t* bytes = file_.bytes().data() + begin;
  if (destination.is_contiguous() && destination.is_cpu() && destination.scalar_type() == *type) {
    std::memcpy(destination.mutable_data_ptr(), bytes, destination.nbytes());
  } else if (destination.is_contiguous()) {
    CopyConverted(bytes, *type, destination.view({-1}));
  } else {
    const at::Tensor whole = at::empty(shape, destination.options());
    CopyConverted(bytes, *type, whole.view({-1}));
    destination.copy_(whole);
  }
  return absl::OkStatus();
}

absl::Status SafetensorsReader::Read(std::string_view name, const at::Tensor& destination) const {
  PCMOE_ASSIGN_OR_RETURN(const TensorEntry* entry, Find(name));
  return Copy(name, *entry, entry->shape, entry->begin, destination);
}

absl::Status SafetensorsReader::ReadRow(std::string_view name, int64_t index,
                                        const at::Tensor& destination) const {
  PCMOE_ASSIGN_OR_RETURN(const TensorEntry* entry, Find(name));
  if (entry->shape.empty() || index < 0 || index >= entry->shape[0]) {
    return absl::InvalidArgumentError(absl::StrCat(path_.string(), ": ", std::string(name),
                                                   " of shape ", ShapeText(entry->shape),
                                                   " has no row ", index));
  }
  const uint64_t row = (entry->end - entry->begin) / static_cast<uint64_t>(entry->shape[0]);
  return Copy(name, *entry, at::IntArrayRef(entry->shape).slice(1),
              entry->begin + row * static_cast<uint64_t>(index), destination);
}

absl::StatusOr<at::Tensor> SafetensorsReader::Load(std::string_view name) const {
  PCMOE_ASSIGN_OR_RETURN(const TensorEntry* entry, Find(name));
  const absl::StatusOr<at::ScalarType> type = ScalarTypeOf(entry->dtype);
  if (!type.ok()) {
    return WithContext(type.status(), absl::StrCat(path_.string(), ": ", std::string(name)));
  }
  const at::Tensor tensor = at::empty(entry->shape, at::TensorOptions().dtype(*type));
  PCMOE_RETURN_IF_ERROR(Read(name, tensor));
  return tensor;
}

}  // namespace pcmoe::tensor
