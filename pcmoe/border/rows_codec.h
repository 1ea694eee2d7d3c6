// pcmoe/border/rows_codec.h: the four messages of the exchange `rows` as bytes, and back, checked.
// Shape legend: R rows of a message, D hidden width, N (row, expert) pairs.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "pcmoe/base/status.h"
#include "pcmoe/wire/message.h"

namespace pcmoe::border {

/// One (row, expert) pair of a message, rows ascending.
struct WirePair {
  uint32_t row = 0;
  uint16_t expert = 0;  ///< Global id.
  float weight = 0;
};

/// What a peer's message must fit; everything else is refused.
struct RowLimits {
  int64_t max_rows = 0;
  int64_t width = 0;                ///< D
  int64_t max_experts_per_row = 0;  ///< K
  int64_t num_experts = 0;          ///< E
  at::ScalarType dtype = at::kFloat;
};

/// Rows ladder: the number of rows that `rows` is padded to, at most 1/64 more from 128 rows on,
/// and to a multiple of 2 below. Public; an eavesdropper learns the rung, not the count.
int64_t PaddedRows(int64_t rows);

/// Home to owner. Rows `row_index_r` (int64) of `source_td` in that order, then zero rows up to
/// `padded_rows`; `pairs` refer to positions in the message.
wire::Buffer EncodeExpertRows(const at::Tensor& source_td, const at::Tensor& row_index_r,
                              std::span<const WirePair> pairs, int64_t padded_rows);
struct ExpertRows {
  at::Tensor rows_rd;  ///< Padding included; shares the message's memory.
  std::vector<WirePair> pairs;
};
absl::StatusOr<ExpertRows> DecodeExpertRows(wire::Buffer payload, const RowLimits& limits);

/// Rows alone (kExpertOutputs, kRowGradients): exactly `expected_rows` of them.
wire::Buffer EncodeRows(const at::Tensor& rows_rd);
/// As EncodeRows of the chosen rows followed by zero rows.
wire::Buffer EncodeRowsOf(const at::Tensor& source_td, const at::Tensor& row_index_r,
                          int64_t padded_rows);
absl::StatusOr<at::Tensor> DecodeRows(wire::Buffer payload, int64_t expected_rows,
                                      const RowLimits& limits);

/// Owner to home: dx rows and one dL/dweight a pair, in the order of the request.
wire::Buffer EncodeInputGradients(const at::Tensor& dx_rd, const at::Tensor& dweight_n);
struct InputGradients {
  at::Tensor dx_rd;
  at::Tensor dweight_n;
};
absl::StatusOr<InputGradients> DecodeInputGradients(wire::Buffer payload, int64_t expected_rows,
                                                    int64_t expected_pairs,
                                                    const RowLimits& limits);

}  // namespace pcmoe::border
