// pcmoe/exchange/shard/backbone_owners.cc: see backbone_owners.h.
#include "pcmoe/exchange/shard/backbone_owners.h"

#include <algorithm>

namespace pcmoe::exchange {
namespace {

model::Part PartOf(PartMode mode, bool own) {
  switch (mode) {
    case PartMode::kPrivate:
      return model::Part::kPrivate;
    case PartMode::kFrozen:
      return model::Part::kFrozen;
    case PartMode::kAggregated:
      return own ? model::Part::kUnit : model::Part::kElsewhere;
  }
  return model::Part::kPrivate;
}

}  // namespace

BackboneOwners::BackboneOwners(const model::ModelConfig& config, const ExpertMap& experts,
                               const BackboneModes& modes)
    : modes_(modes),
      blocks_l_(static_cast<size_t>(config.num_layers), -1),
      owned_p_(static_cast<size_t>(experts.parties()), 0) {
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    for (int64_t expert = 0; expert < config.num_experts; ++expert) {
      const int owner = experts.OwnerOf(layer, expert);
      if (owner >= 0) {
        owned_p_[static_cast<size_t>(owner)] += 3 * config.expert_size * config.hidden_size;
      }
    }
  }
  const model::BackboneSizes sizes = model::SizesOfBackbone(config);
  struct Piece {
    int64_t size;
    int* owner;
  };
  std::vector<Piece> pieces;
  if (modes.embedding == PartMode::kAggregated) pieces.push_back({sizes.embedding, &embedding_});
  if (modes.head == PartMode::kAggregated) pieces.push_back({sizes.head, &head_});
  if (modes.blocks == PartMode::kAggregated) {
    for (size_t l = 0; l < blocks_l_.size(); ++l) {
      pieces.push_back({sizes.blocks_l[l], &blocks_l_[l]});
    }
  }
  std::stable_sort(pieces.begin(), pieces.end(),
                   [](const Piece& a, const Piece& b) { return a.size > b.size; });
  for (const Piece& piece : pieces) {
    const auto least = std::min_element(owned_p_.begin(), owned_p_.end());
    *least += piece.size;
    *piece.owner = static_cast<int>(least - owned_p_.begin());
  }
}

model::Holdings BackboneOwners::HoldingsOf(int party, const ExpertMap& experts) const {
  model::Holdings holdings{.experts = experts.SelectionOf(party)};
  for (const int owner : blocks_l_) {
    holdings.blocks_l.push_back(PartOf(modes_.blocks, owner == party));
  }
  holdings.embedding = PartOf(modes_.embedding, embedding_ == party);
  holdings.head = PartOf(modes_.head, head_ == party);
  return holdings;
}

}  // namespace pcmoe::exchange
