// pcmoe/model/row_request.h: some rows and the experts each of them goes to, in the order of work.
// Shape legend: R rows, D width, N (row, expert) pairs, E experts of a shard's layer.
#pragma once

#include <ATen/core/Tensor.h>

#include <span>
#include <vector>

#include "pcmoe/base/status.h"

namespace pcmoe::model {

/// One (row, expert) pair as the wire and the router give it.
struct RowExpert {
  int32_t row = 0;     ///< In [0, R).
  int32_t expert = 0;  ///< Local index into the shard's layer, in [0, E).
  float weight = 0;    ///< Factor of the expert's answer.
};

/// The pairs of a request, sorted by expert and, within one, by their order of arrival.
struct PairPlan {
  at::Tensor row_n;            ///< int32 [N], row of each sorted pair.
  at::Tensor weight_n;         ///< float [N].
  at::Tensor original_n;       ///< int64 [N], index of each sorted pair in the order given.
  at::Tensor row_offsets_r1;   ///< int32 [R+1], and
  at::Tensor row_positions_n;  ///< int32 [N]: the sorted pairs of each row, by ascending expert.
  std::vector<int64_t> expert_offsets;  ///< [E+1], sorted pairs of each expert.
  int64_t rows = 0;
  int64_t pairs() const { return expert_offsets.back(); }
};

/// INVALID_ARGUMENT when a row or expert is out of range.
absl::StatusOr<PairPlan> PlanPairs(std::span<const RowExpert> pairs, int64_t rows, int64_t experts);

}  // namespace pcmoe::model
