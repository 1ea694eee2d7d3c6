// pcmoe/exchange/shard/expert_map.cc: see expert_map.h.
#include "pcmoe/exchange/shard/expert_map.h"

namespace pcmoe::exchange {

ExpertMap::ExpertMap(const model::ModelConfig& config, const federation::Placement& placement)
    : parties_(placement.parties()),
      owner_(static_cast<size_t>(config.num_layers)),
      local_index_(static_cast<size_t>(parties_)),
      owned_(static_cast<size_t>(parties_)) {
  const auto layers = static_cast<size_t>(config.num_layers);
  const auto experts = static_cast<size_t>(config.num_experts);
  for (size_t party = 0; party < static_cast<size_t>(parties_); ++party) {
    local_index_[party].assign(layers, std::vector<int32_t>(experts, -1));
    owned_[party].resize(layers);
  }
  int moe_layer = 0;
  for (size_t layer = 0; layer < layers; ++layer) {
    if (!config.sparse_layers[layer]) continue;
    for (size_t expert = 0; expert < experts; ++expert) {
      const int owner = placement.OwnerOf(moe_layer, static_cast<int>(expert));
      owner_[layer].push_back(owner);
      auto& owned = owned_[static_cast<size_t>(owner)][layer];
      local_index_[static_cast<size_t>(owner)][layer][expert] = static_cast<int32_t>(owned.size());
      owned.push_back(static_cast<int64_t>(expert));
    }
    ++moe_layer;
  }
}

int ExpertMap::OwnerOf(int64_t layer, int64_t expert) const {
  const auto& owners = owner_[static_cast<size_t>(layer)];
  return owners.empty() ? -1 : owners[static_cast<size_t>(expert)];
}

std::span<const int32_t> ExpertMap::LocalIndex(int party, int64_t layer) const {
  return local_index_[static_cast<size_t>(party)][static_cast<size_t>(layer)];
}

bool ExpertMap::Owns(int party, int64_t layer) const {
  return !owned_[static_cast<size_t>(party)][static_cast<size_t>(layer)].empty();
}

model::ExpertSelection ExpertMap::SelectionOf(int party) const {
  return [owned = owned_[static_cast<size_t>(party)]](int64_t layer) {
    return owned[static_cast<size_t>(layer)];
  };
}

}  // namespace pcmoe::exchange
