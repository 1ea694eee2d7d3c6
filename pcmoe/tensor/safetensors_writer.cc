// pcmoe/tensor/safetensors_writer.cc: the writer of safetensors.h.
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <set>
#include <system_error>
#include <vector>

#include "pcmoe/tensor/dtype.h"
#include "pcmoe/tensor/safetensors.h"

namespace pcmoe::tensor {
namespace {

struct FileCloser {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using FilePointer = std::unique_ptr<std::FILE, FileCloser>;

absl::Status DiskError(const std::filesystem::path& path, std::string_view what) {
  const int error = errno;
  return absl::Status(absl::ErrnoToStatusCode(error),
                      absl::StrCat(path.string(), ": cannot ", std::string(what), ": ",
                                   std::generic_category().message(error)));
}

// Wider numbers first; within a width as given.
std::vector<const NamedTensor*> FileOrder(std::span<const NamedTensor> tensors) {
  std::vector<const NamedTensor*> order;
  order.reserve(tensors.size());
  for (const NamedTensor& item : tensors) order.push_back(&item);
  std::stable_sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return a->tensor.element_size() > b->tensor.element_size();
  });
  return order;
}

absl::StatusOr<std::vector<std::pair<std::string, TensorEntry>>> LayOut(
    const std::vector<const NamedTensor*>& order) {
  std::vector<std::pair<std::string, TensorEntry>> entries;
  std::set<std::string_view> names{"__metadata__"};
  uint64_t position = 0;
  for (const NamedTensor* item : order) {
    if (!names.insert(item->name).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("the tensor name ", item->name, " cannot be used (twice)"));
    }
    PCMOE_ASSIGN_OR_RETURN(const std::string_view dtype, DtypeNameOf(item->tensor.scalar_type()));
    const uint64_t end = position + item->tensor.nbytes();
    entries.emplace_back(
        item->name, TensorEntry{std::string(dtype), item->tensor.sizes().vec(), position, end});
    position = end;
  }
  return entries;
}

}  // namespace

absl::StatusOr<uint64_t> WriteSafetensors(const std::filesystem::path& path,
                                          std::span<const NamedTensor> tensors,
                                          const std::map<std::string, std::string>& metadata) {
  for (const NamedTensor& item : tensors) {
    if (!item.tensor.defined()) {
      return absl::InvalidArgumentError(
          absl::StrCat(path.string(), ": the tensor ", item.name, " has no value to write"));
    }
  }
  const std::vector<const NamedTensor*> order = FileOrder(tensors);
  const auto entries = LayOut(order);
  if (!entries.ok()) return WithContext(entries.status(), path.string());
  const std::string header = EncodeSafetensorsHeader(*entries, metadata);
  if (header.size() > kMaxHeaderBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path.string(), ": too many tensors for one file; write smaller shards"));
  }
  FilePointer file(std::fopen(path.c_str(), "wb"));
  if (file == nullptr) return DiskError(path, "create");
  if (std::fwrite(header.data(), 1, header.size(), file.get()) != header.size()) {
    return DiskError(path, "write");
  }
  uint64_t bytes = header.size();
  const at::NoGradGuard no_grad;
  for (const NamedTensor* item : order) {
    const at::Tensor data = item->tensor.to(at::kCPU).contiguous();
    if (data.nbytes() > 0 &&
        std::fwrite(data.const_data_ptr(), 1, data.nbytes(), file.get()) != data.nbytes()) {
      return DiskError(path, "write");
    }
    bytes += data.nbytes();
  }
  if (std::fclose(file.release()) != 0) return DiskError(path, "write");
  return bytes;
}

}  // namespace pcmoe::tensor
