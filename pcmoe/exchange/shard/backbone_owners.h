// pcmoe/exchange/shard/backbone_owners.h: who owns which part of an aggregated backbone (DESIGN
// 3.4).
#pragma once

#include <vector>

#include "pcmoe/exchange/shard/expert_map.h"
#include "pcmoe/model/parameters.h"

namespace pcmoe::exchange {

/// How a part of the backbone is trained.
enum class PartMode : uint8_t {
  kPrivate,     ///< Each party trains its own.
  kFrozen,      ///< Nobody trains it; all have the same.
  kAggregated,  ///< One for all, trained on masked sums by its owner.
};

/// Modes of a federation; a tied head must have the embedding's.
struct BackboneModes {
  PartMode blocks = PartMode::kPrivate;
  PartMode embedding = PartMode::kPrivate;
  PartMode head = PartMode::kPrivate;  ///< With the last norm.
};

/// Owners of the aggregated parts; -1 where every party has its own. Every party computes the same
/// from config and placement: the largest part first, each to the party that owns least so far,
/// experts counted. Immutable.
class BackboneOwners {
 public:
  BackboneOwners(const model::ModelConfig& config, const ExpertMap& experts,
                 const BackboneModes& modes);

  const BackboneModes& modes() const { return modes_; }
  int OfBlock(int64_t layer) const { return blocks_l_[static_cast<size_t>(layer)]; }
  int OfEmbedding() const { return embedding_; }
  int OfHead() const { return head_; }
  /// Elements that each party owns, experts included.
  const std::vector<int64_t>& owned_p() const { return owned_p_; }
  /// What `party` holds.
  model::Holdings HoldingsOf(int party, const ExpertMap& experts) const;

 private:
  const BackboneModes modes_;
  std::vector<int> blocks_l_;
  int embedding_ = -1;
  int head_ = -1;
  std::vector<int64_t> owned_p_;
};

}  // namespace pcmoe::exchange
