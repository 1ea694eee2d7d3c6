// pcmoe/exchange/weights/model_fetch.cc: see model_fetch.h.
#include "pcmoe/exchange/weights/model_fetch.h"

#include <algorithm>

namespace pcmoe::exchange {

ModelFetch::ModelFetch(const model::ModelConfig& config, const ExpertMap& map,
                       const BackboneOwners& owners, const model::ExpertShard& shard,
                       const model::Backbone& backbone, Session& session)
    : config_(config),
      units_(config, map, owners, at::kFloat, /*int8=*/false),
      shard_(shard),
      backbone_(backbone),
      fetcher_(
          units_, session, [this](int stage) { return Home(stage); },
          std::make_shared<ByteMeter>()) {}

uint64_t ModelFetch::LargestMessage() const {
  size_t largest = 0;
  for (int stage = 0; stage < units_.stages(); ++stage) {
    for (int owner = 0; owner < units_.parties(); ++owner) {
      largest = std::max(largest, units_.WeightBytes(stage, owner));
    }
  }
  return largest;
}

void ModelFetch::Begin(uint64_t version) {
  std::vector<Visit> visits;
  const auto visit = [&](int stage) {
    if (units_.HasUnits(stage)) visits.push_back({stage, 0});
  };
  visit(units_.EmbeddingStage());
  for (int layer = 0; layer < units_.EmbeddingStage(); ++layer) visit(layer);
  visit(units_.HeadStage());
  fetcher_.Begin(std::move(visits), version);
}

absl::StatusOr<StageTensors> ModelFetch::Next(int stage) {
  return units_.HasUnits(stage) ? fetcher_.Next(stage) : Home(stage);
}

// What this party holds of a stage, owned or private.
StageTensors ModelFetch::Home(int stage) const {
  StageTensors tensors = units_.Frame(stage);
  const model::BackboneParameters& weights = backbone_.weights();
  if (stage == units_.EmbeddingStage()) {
    tensors.embedding_vd = weights.embedding_vd;
    return tensors;
  }
  if (stage == units_.HeadStage()) {
    tensors.final_norm_d = weights.final_norm_d;
    if (!config_.tie_word_embeddings) tensors.head_vd = weights.head_vd;
    return tensors;
  }
  tensors.block = backbone_.MasterBlock(stage);
  const model::ExpertLayerParameters& own = shard_.weights()[static_cast<size_t>(stage)];
  for (size_t i = 0; i < own.expert_ids.size(); ++i) {
    const auto expert = static_cast<size_t>(own.expert_ids[i]);
    tensors.experts.gate_up_fd[expert] = own.gate_up_efd.select(0, static_cast<int64_t>(i));
    tensors.experts.down_df[expert] = own.down_edf.select(0, static_cast<int64_t>(i));
  }
  return tensors;
}

}  // namespace pcmoe::exchange
