// pcmoe/audit/linker.h: finds the rows of one token across layers, from the rows alone. Messages
// are shuffled, so a coalition knows which layer a row is of, but not which token.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "pcmoe/audit/base_model.h"
#include "pcmoe/audit/view.h"

namespace pcmoe::audit {

/// Rows that are believed to be one token's: (layer, row of that layer's view), layers ascending.
struct Cluster {
  std::vector<std::pair<int64_t, int64_t>> rows;
};

/// Links by the cosine between a row, as predicted linearly from a row of an earlier layer, and the
/// rows seen; and by the cosine of their gradients, which hardly change from layer to layer. The
/// linear maps and the least score that counts are learned from public text.
class Linker {
 public:
  /// `shadow` needs gradients if the view has them.
  explicit Linker(const Capture& shadow);

  /// Every row of the view is in exactly one cluster.
  std::vector<Cluster> Link(const View& view) const;

 private:
  struct Pair {
    bool usable = false;
    at::Tensor map_dd, from_mean_d, to_mean_d;
    double least_score = 0;
  };
  at::Tensor Scores(const Pair& pair, const at::Tensor& x_from, const at::Tensor& q_from,
                    const at::Tensor& x_to, const at::Tensor& q_to) const;
  void Learn(const Capture& shadow, size_t from, size_t to);

  static constexpr size_t kMaxGap = 4;  // layers between two rows that are linked directly
  size_t layers_;
  std::vector<std::vector<Pair>> pairs_;  // [from][to]
};

}  // namespace pcmoe::audit
