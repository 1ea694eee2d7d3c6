// pcmoe/model/row_request.cc: see row_request.h.
#include "pcmoe/model/row_request.h"

#include <ATen/ops/empty.h>

namespace pcmoe::model {

absl::StatusOr<PairPlan> PlanPairs(std::span<const RowExpert> pairs, int64_t rows,
                                   int64_t experts) {
  const int64_t count = static_cast<int64_t>(pairs.size());
  PairPlan plan;
  plan.rows = rows;
  plan.expert_offsets.assign(static_cast<size_t>(experts) + 1, 0);
  plan.row_offsets_r1 = at::empty({rows + 1}, at::kInt);
  int32_t* row_offsets = plan.row_offsets_r1.mutable_data_ptr<int32_t>();
  std::fill_n(row_offsets, rows + 1, 0);
  for (const RowExpert& pair : pairs) {
    if (pair.row < 0 || pair.row >= rows || pair.expert < 0 || pair.expert >= experts) {
      return absl::InvalidArgumentError("a (row, expert) pair is out of range");
    }
    ++plan.expert_offsets[static_cast<size_t>(pair.expert) + 1];
    ++row_offsets[pair.row + 1];
  }
  for (size_t e = 0; e < static_cast<size_t>(experts); ++e) {
    plan.expert_offsets[e + 1] += plan.expert_offsets[e];
  }
  for (int64_t r = 0; r < rows; ++r) row_offsets[r + 1] += row_offsets[r];

  plan.row_n = at::empty({count}, at::kInt);
  plan.weight_n = at::empty({count}, at::kFloat);
  plan.original_n = at::empty({count}, at::kLong);
  plan.row_positions_n = at::empty({count}, at::kInt);
  int32_t* row = plan.row_n.mutable_data_ptr<int32_t>();
  float* weight = plan.weight_n.mutable_data_ptr<float>();
  int64_t* original = plan.original_n.mutable_data_ptr<int64_t>();
  std::vector<int64_t> next(plan.expert_offsets.begin(), plan.expert_offsets.end() - 1);
  for (int64_t i = 0; i < count; ++i) {
    const RowExpert& pair = pairs[static_cast<size_t>(i)];
    const int64_t at = next[static_cast<size_t>(pair.expert)]++;
    row[at] = pair.row;
    weight[at] = pair.weight;
    original[at] = i;
  }
  // Walking the sorted pairs fills each row's list in ascending expert order.
  int32_t* positions = plan.row_positions_n.mutable_data_ptr<int32_t>();
  std::vector<int32_t> filled(row_offsets, row_offsets + rows);
  for (int64_t at = 0; at < count; ++at) {
    positions[filled[static_cast<size_t>(row[at])]++] = static_cast<int32_t>(at);
  }
  return plan;
}

}  // namespace pcmoe::model
