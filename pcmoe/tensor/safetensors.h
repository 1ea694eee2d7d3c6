// pcmoe/tensor/safetensors.h: reads and writes tensors in safetensors files.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "pcmoe/base/file.h"
#include "pcmoe/base/status.h"
#include "pcmoe/tensor/safetensors_header.h"

namespace pcmoe::tensor {

/// A tensor and the name it has in a file.
struct NamedTensor {
  std::string name;
  at::Tensor tensor;  ///< Often a view: writing to it writes to its owner.
};

/// An open file, mapped read-only; the header is checked once, in Open. Const methods may be called
/// from several threads.
class SafetensorsReader {
 public:
  /// NOT_FOUND or INVALID_ARGUMENT, naming `path`.
  static absl::StatusOr<SafetensorsReader> Open(const std::filesystem::path& path);

  const std::map<std::string, TensorEntry>& tensors() const { return header_.tensors; }
  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }
  bool Has(std::string_view name) const { return tensors().contains(std::string(name)); }

  /// Copies the tensor into `destination`, which has its shape; numbers are converted to the
  /// destination's dtype (floating to floating, or equal types). INVALID_ARGUMENT names the file
  /// and the tensor when it is missing or its shape or dtype does not fit.
  absl::Status Read(std::string_view name, const at::Tensor& destination) const;

  /// The same for row `index` of the first dimension; `destination` has the shape of one row.
  absl::Status ReadRow(std::string_view name, int64_t index, const at::Tensor& destination) const;

  /// A new CPU tensor of the file's own dtype and shape.
  absl::StatusOr<at::Tensor> Load(std::string_view name) const;

 private:
  SafetensorsReader(std::filesystem::path path, base::MappedFile file, SafetensorsHeader header)
      : path_(std::move(path)), file_(std::move(file)), header_(std::move(header)) {}
  absl::StatusOr<const TensorEntry*> Find(std::string_view name) const;
  absl::Status Copy(std::string_view name, const TensorEntry& entry, at::IntArrayRef shape,
                    uint64_t begin, const at::Tensor& destination) const;

  std::filesystem::path path_;
  base::MappedFile file_;
  SafetensorsHeader header_;
};

/// Writes a new file (over an old one), one tensor at a time, in the order given within equal sizes
/// of number (wider numbers come first, which keeps all aligned). Returns the file's bytes. Tensors
/// may be on any device and need not be contiguous. Neither atomic nor synced: base::PublishFolder
/// does that. INVALID_ARGUMENT: a name twice, or a dtype the format has not; else the failure of
/// the disk.
absl::StatusOr<uint64_t> WriteSafetensors(const std::filesystem::path& path,
                                          std::span<const NamedTensor> tensors,
                                          const std::map<std::string, std::string>& metadata = {
                                              {"format", "pt"}});

}  // namespace pcmoe::tensor
