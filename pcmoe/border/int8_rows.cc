// pcmoe/border/int8_rows.cc: see int8_rows.h.
#include "pcmoe/border/int8_rows.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace pcmoe::border {
namespace {

constexpr float kSteps = 127;

// 0 for a row of zeros; NaN when a value is not finite.
float ScaleOf(const float* row, int64_t columns) {
  float largest = 0;
  float bad = 0;
  for (int64_t i = 0; i < columns; ++i) {
    largest = std::max(largest, std::abs(row[i]));
    bad += row[i] * 0;  // NaN for NaN and infinity
  }
  return bad == 0 ? largest / kSteps : std::numeric_limits<float>::quiet_NaN();
}

}  // namespace

void EncodeInt8Rows(const at::Tensor& matrix, uint8_t* out) {
  const int64_t rows = matrix.size(0);
  const int64_t columns = matrix.size(1);
  const at::Tensor values = matrix.to(at::kFloat);
  const auto* from = values.const_data_ptr<float>();
  auto* to = reinterpret_cast<int8_t*>(out) + rows * static_cast<int64_t>(sizeof(float));
  for (int64_t r = 0; r < rows; ++r, from += columns, to += columns) {
    const float scale = ScaleOf(from, columns);
    std::memcpy(out + static_cast<size_t>(r) * sizeof(float), &scale, sizeof(scale));
    const float factor = scale > 0 ? 1 / scale : 0;  // NaN compares false
    for (int64_t i = 0; i < columns; ++i) {
      const float value = factor > 0 ? from[i] * factor : 0;
      to[i] = static_cast<int8_t>(std::nearbyint(std::clamp(value, -kSteps, kSteps)));
    }
  }
}

void DecodeInt8Rows(std::span<const uint8_t> bytes, at::Tensor& matrix) {
  const int64_t rows = matrix.size(0);
  const int64_t columns = matrix.size(1);
  const bool direct = matrix.scalar_type() == at::kFloat;
  at::Tensor values = direct ? matrix : at::empty({rows, columns}, at::kFloat);
  auto* to = values.mutable_data_ptr<float>();
  const auto* from =
      reinterpret_cast<const int8_t*>(bytes.data()) + rows * static_cast<int64_t>(sizeof(float));
  for (int64_t r = 0; r < rows; ++r, from += columns, to += columns) {
    float scale = 0;
    std::memcpy(&scale, bytes.data() + static_cast<size_t>(r) * sizeof(float), sizeof(scale));
    for (int64_t i = 0; i < columns; ++i) to[i] = scale * static_cast<float>(from[i]);
  }
  if (!direct) matrix.copy_(values);
}

}  // namespace pcmoe::border
