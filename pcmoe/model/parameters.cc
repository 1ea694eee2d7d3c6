// pcmoe/model/parameters.cc: allocates a model's weights and lists them by name (parameters.h).
#include "pcmoe/model/parameters.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <numeric>

#include "pcmoe/model/slots.h"

namespace pcmoe::model {

ExpertSelection AllExperts(const ModelConfig& config) {
  return [sparse = config.sparse_layers, count = config.num_experts](int64_t layer) {
    std::vector<int64_t> ids;
    if (sparse[static_cast<size_t>(layer)]) {
      ids.resize(static_cast<size_t>(count));
      std::iota(ids.begin(), ids.end(), 0);
    }
    return ids;
  };
}

std::vector<NamedTensor> NamedBackbone(const ModelConfig& config,
                                       const BackboneParameters& weights) {
  BackboneParameters handles = weights;  // Copies no numbers; slots want something to point into.
  std::vector<NamedTensor> named;
  for (const Slot& slot : BackboneSlots(config, handles)) {
    if (slot.tensor->defined()) named.push_back({slot.name, *slot.tensor});
  }
  return named;
}

std::vector<NamedTensor> NamedExperts(const ModelConfig& config, const ExpertParameters& weights) {
  const at::NoGradGuard no_grad;
  std::vector<NamedTensor> named;
  for (size_t layer = 0; layer < weights.size(); ++layer) {
    const ExpertLayerParameters& own = weights[layer];
    for (size_t row = 0; row < own.expert_ids.size(); ++row) {
      const auto name = [&](ExpertMatrix matrix) {
        return ExpertTensorName(config, static_cast<int64_t>(layer), own.expert_ids[row], matrix);
      };
      const auto index = static_cast<int64_t>(row);
      if (own.gate_up_efd.defined()) {
        const at::Tensor gate_up = own.gate_up_efd.detach().select(0, index);
        const int64_t width = gate_up.size(0) / 2;
        named.push_back({name(ExpertMatrix::kGate), gate_up.narrow(0, 0, width)});
        named.push_back({name(ExpertMatrix::kUp), gate_up.narrow(0, width, width)});
      }
      if (own.down_edf.defined()) {
        named.push_back({name(ExpertMatrix::kDown), own.down_edf.detach().select(0, index)});
      }
    }
  }
  return named;
}

BackboneParameters EmptyBackbone(const ModelConfig& config, at::ScalarType dtype) {
  BackboneParameters weights;
  for (const Slot& slot : BackboneSlots(config, weights)) {
    *slot.tensor = at::empty(slot.shape, at::TensorOptions().dtype(dtype));
  }
  if (config.tie_word_embeddings) weights.head_vd = weights.embedding_vd;
  return weights;
}

Part PartOf(const Holdings& holdings, std::string_view name) {
  constexpr std::string_view kLayers = "model.layers.";
  if (!name.starts_with(kLayers)) {
    return name.starts_with("model.embed_tokens.") ? holdings.embedding : holdings.head;
  }
  name.remove_prefix(kLayers.size());
  int64_t layer = 0;
  for (; !name.empty() && name[0] >= '0' && name[0] <= '9'; name.remove_prefix(1)) {
    layer = 10 * layer + (name[0] - '0');
  }
  return holdings.Block(layer);
}

BackboneParameters EmptyBackbone(const ModelConfig& config, const Holdings& holdings) {
  BackboneParameters weights;
  for (const Slot& slot : BackboneSlots(config, weights)) {
    const Part part = PartOf(holdings, slot.name);
    if (part == Part::kElsewhere) continue;
    *slot.tensor = at::empty(slot.shape, at::TensorOptions().dtype(at::kFloat));
  }
  if (config.tie_word_embeddings) weights.head_vd = weights.embedding_vd;
  return weights;
}

ExpertParameters EmptyExperts(const ModelConfig& config, const ExpertSelection& selection,
                              at::ScalarType dtype) {
  ExpertParameters weights(static_cast<size_t>(config.num_layers));
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    if (!config.sparse_layers[static_cast<size_t>(layer)]) continue;
    ExpertLayerParameters& own = weights[static_cast<size_t>(layer)];
    own.expert_ids = selection(layer);
    const auto count = static_cast<int64_t>(own.expert_ids.size());
    if (count == 0) continue;
    const auto options = at::TensorOptions().dtype(dtype);
    own.gate_up_efd = at::empty({count, 2 * config.expert_size, config.hidden_size}, options);
    own.down_edf = at::empty({count, config.hidden_size, config.expert_size}, options);
  }
  return weights;
}

}  // namespace pcmoe::model
