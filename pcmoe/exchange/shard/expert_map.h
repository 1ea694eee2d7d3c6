// pcmoe/exchange/shard/expert_map.h: who owns which expert of a model's layers, both ways.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "pcmoe/federation/placement.h"
#include "pcmoe/model/parameters.h"

namespace pcmoe::exchange {

/// Placement in the model's own layer numbers (a placement counts sparse layers only). Immutable.
class ExpertMap {
 public:
  /// The layers and experts of `config` must be those of `placement`.
  ExpertMap(const model::ModelConfig& config, const federation::Placement& placement);

  int parties() const { return parties_; }
  /// -1 for a layer that is not sparse.
  int OwnerOf(int64_t layer, int64_t expert) const;
  /// Local index of every expert of the layer at `party`, -1 where another party owns it; [E].
  std::span<const int32_t> LocalIndex(int party, int64_t layer) const;
  /// Whether `party` owns at least one expert of the layer.
  bool Owns(int party, int64_t layer) const;
  /// For EmptyExperts: what `party` owns.
  model::ExpertSelection SelectionOf(int party) const;

 private:
  int parties_;
  std::vector<std::vector<int>> owner_;                         // [layer][expert]
  std::vector<std::vector<std::vector<int32_t>>> local_index_;  // [party][layer][expert]
  std::vector<std::vector<std::vector<int64_t>>> owned_;        // [party][layer]
};

}  // namespace pcmoe::exchange
