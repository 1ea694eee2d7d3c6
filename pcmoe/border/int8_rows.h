// pcmoe/border/int8_rows.h: a matrix in a quarter (or half) of its bytes: int8 with a scale per
// row.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>

#include "pcmoe/base/status.h"

namespace pcmoe::border {

/// Bytes of a matrix of `rows` x `columns`: a float per row, then the rows as int8.
constexpr size_t Int8RowsBytes(int64_t rows, int64_t columns) {
  return static_cast<size_t>(rows) * (sizeof(float) + static_cast<size_t>(columns));
}

/// Writes `matrix` (contiguous, fp32 or bf16, [R, C]) into `out` of Int8RowsBytes: every row
/// divided by its largest value / 127 and rounded to the nearest, ties to even. A row with a value
/// that is not finite gets a scale of NaN, so that it is not finite for the reader either.
void EncodeInt8Rows(const at::Tensor& matrix, uint8_t* out);

/// The matrix back into `matrix` (contiguous, fp32 or bf16). `bytes` must be Int8RowsBytes long.
void DecodeInt8Rows(std::span<const uint8_t> bytes, at::Tensor& matrix);

}  // namespace pcmoe::border
