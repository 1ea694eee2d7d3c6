// pcmoe/exchange/weights/model_fetch.h: the whole model, stage by stage, for an export: what others
// own comes from them, in fp32, by the messages of the exchange `weights`.
#pragma once

#include <memory>

#include "pcmoe/exchange/weights/stage_fetcher.h"
#include "pcmoe/model/backbone.h"
#include "pcmoe/model/expert_shard.h"

namespace pcmoe::exchange {

/// Every party goes through all stages in the same order (embedding, layers, head), within one
/// phase of the session, whichever exchange the federation trains with. One thread.
class ModelFetch {
 public:
  /// All outlive this. The weights that leave are the fp32 masters of `shard` and `backbone`.
  ModelFetch(const model::ModelConfig& config, const ExpertMap& map, const BackboneOwners& owners,
             const model::ExpertShard& shard, const model::Backbone& backbone, Session& session);

  /// The payload of the largest message that any party sends.
  uint64_t LargestMessage() const;

  /// A pass with the weights of `version` (committed steps) starts.
  void Begin(uint64_t version);

  /// The next stage, whole: from owners, or from here. Errors as StageFetcher's.
  absl::StatusOr<StageTensors> Next(int stage);

 private:
  StageTensors Home(int stage) const;

  const model::ModelConfig config_;
  const StageUnits units_;
  const model::ExpertShard& shard_;
  const model::Backbone& backbone_;
  StageFetcher fetcher_;
};

}  // namespace pcmoe::exchange
