// pcmoe/federation/placement.h: which party owns which expert of which layer.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "pcmoe/federation/manifest.h"

namespace pcmoe::federation {

/// The owner of every routed expert. Layers are MoE layers counted from 0; an expert has exactly
/// one owner, a party may own none. Immutable.
class Placement {
 public:
  /// Deals out `layers` x `experts` as `owners` says; empty `owners`: expert e belongs to party
  /// e mod parties. INVALID_ARGUMENT when the explicit lists do not fit the model.
  static absl::StatusOr<Placement> Create(const Owners& owners, size_t layers, size_t experts,
                                          size_t parties);

  /// Index of the party; arguments in range.
  int OwnerOf(int layer, int expert) const;
  /// Experts of `party` in `layer`, ascending.
  std::span<const int> ExpertsOf(int party, int layer) const;
  /// How many experts `party` owns over all layers.
  int64_t CountOf(int party) const;
  int layers() const { return static_cast<int>(owner_.size()); }
  int experts() const { return experts_; }
  int parties() const { return static_cast<int>(owned_.size()); }

 private:
  std::vector<std::vector<int>> owner_;               // [layer][expert]
  std::vector<std::vector<std::vector<int>>> owned_;  // [party][layer] -> experts
  int experts_ = 0;
};

}  // namespace pcmoe::federation
