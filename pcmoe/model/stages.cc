// pcmoe/model/stages.cc: names and files of a stage (stages.h).
#include "pcmoe/model/stages.h"

#include <ATen/core/grad_mode.h>

#include "pcmoe/model/slots.h"

namespace pcmoe::model {
namespace {

// Holds this stage and nothing else.
Holdings OnlyStage(const ModelConfig& config, int64_t stage) {
  const auto part = [stage](int64_t of) { return of == stage ? Part::kPrivate : Part::kElsewhere; };
  Holdings holdings;
  holdings.experts = [all = AllExperts(config), stage](int64_t layer) {
    return layer == stage ? all(layer) : std::vector<int64_t>{};
  };
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    holdings.blocks_l.push_back(part(layer));
  }
  holdings.embedding = part(EmbeddingStageOf(config));
  holdings.head = part(HeadStageOf(config));
  return holdings;
}

bool IsLayer(const ModelConfig& config, int64_t stage) { return stage < config.num_layers; }

}  // namespace

std::vector<NamedTensor> NamedStage(const ModelConfig& config, int64_t stage,
                                    const StageTensors& tensors) {
  const at::NoGradGuard no_grad;
  BackboneParameters backbone;
  if (IsLayer(config, stage)) {
    backbone = EmptyBackbone(config, OnlyStage(config, stage));
    BlockWeights named = FuseStorage(backbone.layers[static_cast<size_t>(stage)]);
    BlockWeights given = tensors.block;
    const std::vector<BlockEntry> to = BlockEntries(config, stage, named);
    const std::vector<BlockEntry> from = BlockEntries(config, stage, given);
    for (size_t i = 0; i < to.size(); ++i) to[i].tensor->copy_(*from[i].tensor);
  } else if (stage == EmbeddingStageOf(config)) {
    backbone.embedding_vd = tensors.embedding_vd;
  } else {
    backbone.final_norm_d = tensors.final_norm_d;
    backbone.head_vd = tensors.head_vd;
  }
  std::vector<NamedTensor> named = NamedBackbone(config, backbone);
  for (size_t e = 0; e < tensors.experts.down_df.size(); ++e) {
    const auto add = [&](ExpertMatrix matrix, at::Tensor tensor) {
      named.push_back(
          {ExpertTensorName(config, stage, static_cast<int64_t>(e), matrix), std::move(tensor)});
    };
    const at::Tensor gate_up = tensors.experts.gate_up_fd[e].detach();
    const int64_t width = gate_up.size(0) / 2;
    add(ExpertMatrix::kGate, gate_up.narrow(0, 0, width));
    add(ExpertMatrix::kUp, gate_up.narrow(0, width, width));
    add(ExpertMatrix::kDown, tensors.experts.down_df[e].detach());
  }
  return named;
}

absl::StatusOr<StageTensors> LoadStage(const std::filesystem::path& folder,
                                       const ModelConfig& config, int64_t stage) {
  const Holdings holdings = OnlyStage(config, stage);
  BackboneParameters backbone = EmptyBackbone(config, holdings);
  ExpertParameters experts = EmptyExperts(config, holdings.experts);
  PCMOE_RETURN_IF_ERROR(LoadCheckpoint(folder, config, backbone, experts));
  StageTensors tensors;
  if (!IsLayer(config, stage)) {
    tensors.embedding_vd = backbone.embedding_vd;
    tensors.final_norm_d = backbone.final_norm_d;
    if (!config.tie_word_embeddings) tensors.head_vd = backbone.head_vd;
    return tensors;
  }
  tensors.block = FuseStorage(backbone.layers[static_cast<size_t>(stage)]);
  const ExpertLayerParameters& own = experts[static_cast<size_t>(stage)];
  for (int64_t e = 0; e < static_cast<int64_t>(own.expert_ids.size()); ++e) {
    tensors.experts.gate_up_fd.push_back(own.gate_up_efd.select(0, e));
    tensors.experts.down_df.push_back(own.down_edf.select(0, e));
  }
  return tensors;
}

}  // namespace pcmoe::model
