// fuzz/safetensors_fuzz.cc: any safetensors file is refused, or every tensor lies within it.
#include <cstdint>
#include <span>

#include "fuzz/check.h"
#include "pcmoe/tensor/safetensors_header.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto header = pcmoe::tensor::ParseSafetensorsHeader({data, size});
  if (!header.ok()) return 0;
  for (const auto& [name, entry] : header->tensors) {
    FUZZ_CHECK(entry.begin <= entry.end && entry.end <= size);
    uint64_t bytes = pcmoe::tensor::DtypeBytes(entry.dtype);
    for (const int64_t dimension : entry.shape) bytes *= static_cast<uint64_t>(dimension);
    FUZZ_CHECK(bytes == entry.end - entry.begin);
  }
  return 0;
}
