// pcmoe/federation/placement.cc: see placement.h.
#include "pcmoe/federation/placement.h"

namespace pcmoe::federation {

absl::StatusOr<Placement> Placement::Create(const Owners& owners, size_t layers, size_t experts,
                                            size_t parties) {
  if (parties == 0 || layers > kMaxLayers || experts > kMaxExperts) {
    return absl::InvalidArgumentError("placement: the model has too many layers or experts");
  }
  if (owners.size() > 1 && owners.size() != layers) {
    return absl::InvalidArgumentError(absl::StrCat(
        "placement: the manifest places ", owners.size(), " layers, but the model has ", layers,
        "; write one list a layer, or one list for all layers"));
  }
  Placement placement;
  placement.experts_ = static_cast<int>(experts);
  placement.owner_.assign(layers, std::vector<int>(experts));
  placement.owned_.assign(parties, std::vector<std::vector<int>>(layers));
  for (size_t layer = 0; layer < layers; ++layer) {
    const std::vector<uint32_t>* row = nullptr;
    if (!owners.empty()) row = &owners[owners.size() == 1 ? 0 : layer];
    if (row != nullptr && row->size() != experts) {
      return absl::InvalidArgumentError(absl::StrCat("placement: layer ", layer,
                                                     " of the manifest places ", row->size(),
                                                     " experts, but the model has ", experts));
    }
    for (size_t expert = 0; expert < experts; ++expert) {
      const size_t party = row == nullptr ? expert % parties : (*row)[expert];
      if (party >= parties) {
        return absl::InvalidArgumentError(
            absl::StrCat("placement: there is no party number ", party));
      }
      placement.owner_[layer][expert] = static_cast<int>(party);
      placement.owned_[party][layer].push_back(static_cast<int>(expert));
    }
  }
  return placement;
}

int Placement::OwnerOf(int layer, int expert) const {
  return owner_[static_cast<size_t>(layer)][static_cast<size_t>(expert)];
}

std::span<const int> Placement::ExpertsOf(int party, int layer) const {
  return owned_[static_cast<size_t>(party)][static_cast<size_t>(layer)];
}

int64_t Placement::CountOf(int party) const {
  int64_t count = 0;
  for (const auto& experts : owned_[static_cast<size_t>(party)]) {
    count += static_cast<int64_t>(experts.size());
  }
  return count;
}

}  // namespace pcmoe::federation
