// pcmoe/audit/sums_view.h: what an owner learns in a `weights` run: for each step, the sum of all
// other parties' gradients of its units. Built from recorded bytes alone. Shape legend: E experts
// of the owner, F expert width, D hidden width, V vocabulary, L layers.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <vector>

#include "pcmoe/audit/view.h"

namespace pcmoe::audit {

/// One tensor of an owner's units in a stage, as its share of gradients is laid out.
struct UnitPart {
  int64_t expert = -1;  ///< Global id; -1: of the backbone.
  int entry = 0;        ///< Of an expert: 0 gate_up [2F, D], 1 down [D, F].
  std::vector<int64_t> shape;
  size_t first_group = 0;      ///< Of the scales; further parts have the next ones.
  std::vector<int64_t> parts;  ///< Elements with a scale of their own, one after another.
};

/// What one party owns, [stage][tensor]; stages are the layers, then embedding and head.
using UnitLayout = std::vector<std::vector<UnitPart>>;

/// The released sum of one step, for one owner.
struct ReleasedSum {
  struct Expert {
    int64_t layer = 0;
    int64_t id = 0;
    at::Tensor gate_up_fd;  ///< float [2F, D]
    at::Tensor down_df;     ///< float [D, F]
  };
  int64_t step = 0;
  int owner = 0;
  std::vector<Expert> experts;
  at::Tensor embedding_vd;  ///< Undefined unless the owner sums it.
  at::Tensor one_share_rd;  ///< float [R, D]: rows of a single masked share, as they came.
  int64_t loss_tokens = 0;  ///< Of the others in the step, as they told everybody.
};

/// Steps in which masked gradients came to the member, ascending.
std::vector<int64_t> StepsWithSums(const Member& member);

/// DATA_LOSS naming the message when a payload does not fit the layout; FAILED_PRECONDITION when a
/// share or its scales are missing. `parties` are all of the federation.
absl::StatusOr<ReleasedSum> ReadReleasedSum(const Member& member, const UnitLayout& layout,
                                            int parties, int64_t hidden, int64_t step);

}  // namespace pcmoe::audit
