// pcmoe/model/stages.h: a model cut into stages that fit one after another: the layers, then the
// embedding, then the head with the last norm. For whoever cannot hold it whole.
#pragma once

#include <filesystem>
#include <functional>
#include <vector>

#include "pcmoe/model/block.h"
#include "pcmoe/model/expert_layer.h"
#include "pcmoe/model/parameters.h"

namespace pcmoe::model {

/// The tensors of a stage, weights or gradients, whoever owns them; undefined where the stage has
/// none, or where they are not units.
struct StageTensors {
  ExpertMatrices experts;  ///< All E of a sparse layer.
  BlockWeights block;
  at::Tensor embedding_vd, final_norm_d, head_vd;
};

/// Numbers of the stages: 0 to L-1 are the layers.
inline int64_t EmbeddingStageOf(const ModelConfig& config) { return config.num_layers; }
inline int64_t HeadStageOf(const ModelConfig& config) { return config.num_layers + 1; }

/// The weights of a whole stage (fp32) under their names in a checkpoint: the backbone's, copied
/// where they are fused here, then the experts', as views.
std::vector<NamedTensor> NamedStage(const ModelConfig& config, int64_t stage,
                                    const StageTensors& tensors);

/// One stage of the checkpoint in `folder`, in fp32. Errors as LoadCheckpoint's.
absl::StatusOr<StageTensors> LoadStage(const std::filesystem::path& folder,
                                       const ModelConfig& config, int64_t stage);

/// Gives the weights of a stage (fp32), whole.
using NextStage = std::function<absl::StatusOr<StageTensors>(int64_t stage)>;

/// Forward in fp32 of tokens [B, S], with one stage of the model here at a time: logits [B, S, V].
/// `next` is asked for the embedding, the layers ascending and the head; its error is returned.
absl::StatusOr<at::Tensor> StagedLogits(const ModelConfig& config, const at::Tensor& tokens_bs,
                                        const NextStage& next);

}  // namespace pcmoe::model
