// pcmoe/model/count.cc: how many parameters a model has, from its config alone (parameters.h).
#include <algorithm>

#include "pcmoe/model/slots.h"

namespace pcmoe::model {

ParameterCount CountParameters(const ModelConfig& config) {
  ParameterCount count;
  BackboneParameters shapes_only;
  for (const Slot& slot : BackboneSlots(config, shapes_only)) {
    int64_t numbers = 1;
    for (const int64_t size : slot.shape) numbers *= size;
    count.backbone += numbers;
  }
  const int64_t sparse = std::count(config.sparse_layers.begin(), config.sparse_layers.end(), true);
  count.per_expert = 3 * config.expert_size * config.hidden_size;
  count.experts = sparse * config.num_experts * count.per_expert;
  count.active = count.backbone + sparse * config.experts_per_token * count.per_expert;
  count.total = count.backbone + count.experts;
  return count;
}

BackboneSizes SizesOfBackbone(const ModelConfig& config) {
  BackboneSizes sizes;
  sizes.blocks_l.resize(static_cast<size_t>(config.num_layers));
  BackboneParameters shapes_only;
  for (const Slot& slot : BackboneSlots(config, shapes_only)) {
    int64_t numbers = 1;
    for (const int64_t size : slot.shape) numbers *= size;
    int64_t& sum = slot.stage == kEmbeddingStage ? sizes.embedding
                   : slot.stage == kHeadStage    ? sizes.head
                                                 : sizes.blocks_l[static_cast<size_t>(slot.stage)];
    sum += numbers;
  }
  return sizes;
}

}  // namespace pcmoe::model
