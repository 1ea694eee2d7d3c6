// pcmoe/model/slots.h: the list of a backbone's tensors: name, shape and kind of each, said once.
// Inside pcmoe/model only; others use parameters.h.
#pragma once

#include <string>
#include <vector>

#include "pcmoe/model/parameters.h"

namespace pcmoe::model {

/// How a tensor starts.
enum class SlotKind { kMatrix, kEmbedding, kNorm, kBias };

/// Stages of a backbone besides its layers (0 to L-1).
inline constexpr int64_t kEmbeddingStage = -1;
inline constexpr int64_t kHeadStage = -2;  ///< Last norm and head.

/// One tensor of the backbone that the config asks for.
struct Slot {
  std::string name;    ///< In a checkpoint.
  at::Tensor* tensor;  ///< Where it is; null where only shapes are asked for.
  std::vector<int64_t> shape;
  SlotKind kind;
  int64_t stage;  ///< A layer, kEmbeddingStage or kHeadStage.
};

/// Every tensor of the backbone, in NamedBackbone's order; a tied head is not listed. Resizes
/// `weights.layers` to the config's layers; the slots point into `weights`.
std::vector<Slot> BackboneSlots(const ModelConfig& config, BackboneParameters& weights);

enum class ExpertMatrix { kGate, kUp, kDown };

/// "model.layers.3.mlp.experts.7.gate_proj.weight", as the family spells it.
std::string ExpertTensorName(const ModelConfig& config, int64_t layer, int64_t expert,
                             ExpertMatrix matrix);

/// "model.layers.3.mlp." or Mixtral's "model.layers.3.block_sparse_moe.".
std::string SparsePrefix(const ModelConfig& config, int64_t layer);

}  // namespace pcmoe::model
