// pcmoe/tensor/safetensors_header.h: which tensors a safetensors file holds, and where; no
// LibTorch.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pcmoe/base/status.h"

namespace pcmoe::tensor {

/// Longest header read, in bytes; the format's own bound.
inline constexpr uint64_t kMaxHeaderBytes = 100'000'000;

/// One tensor of a file.
struct TensorEntry {
  std::string dtype;           ///< As in the file: "F32", "BF16", ...
  std::vector<int64_t> shape;  ///< Dimensions >= 0; empty for a scalar.
  uint64_t begin = 0;          ///< Bytes [begin, end) of the whole file.
  uint64_t end = 0;
};

struct SafetensorsHeader {
  std::map<std::string, TensorEntry> tensors;
  std::map<std::string, std::string> metadata;
};

/// Bytes of one number of a safetensors dtype; 0 for a dtype that the format's whole-byte types do
/// not include.
uint64_t DtypeBytes(std::string_view dtype);

/// Reads the header of a whole file. Checked as the format demands: header length, strict JSON, no
/// name twice, every tensor's byte count equal to shape times dtype, and the tensors cover the data
/// from its first to its last byte without overlap or hole. INVALID_ARGUMENT says what is wrong.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(std::span<const uint8_t> file);

/// The first bytes of a file that will hold `tensors`, whose begin and end count from the first
/// byte of data here: length, JSON, and spaces up to a multiple of 8 bytes.
std::string EncodeSafetensorsHeader(const std::vector<std::pair<std::string, TensorEntry>>& tensors,
                                    const std::map<std::string, std::string>& metadata);

}  // namespace pcmoe::tensor
