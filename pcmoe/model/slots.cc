// pcmoe/model/slots.cc: see slots.h. Names as in the checkpoints of Hugging Face's Hub.
#include "pcmoe/model/slots.h"

#include <utility>

namespace pcmoe::model {
namespace {

// Collects the slots of one layer under its prefix.
class LayerSlots {
 public:
  LayerSlots(const ModelConfig& config, int64_t layer, std::vector<Slot>& slots)
      : config_(config),
        layer_number_(layer),
        prefix_(absl::StrCat("model.layers.", layer, ".")),
        slots_(slots) {}

  void Norms(LayerParameters& layer) {
    Add("input_layernorm.weight", layer.input_norm_d, {config_.hidden_size}, SlotKind::kNorm);
    Add("post_attention_layernorm.weight", layer.post_norm_d, {config_.hidden_size},
        SlotKind::kNorm);
  }

  void Attention(LayerParameters& layer) {
    const int64_t width = config_.hidden_size;
    const int64_t query = config_.QueryWidth();
    const int64_t key = config_.KeyWidth();
    Add("self_attn.q_proj.weight", layer.q_hd, {query, width}, SlotKind::kMatrix);
    Add("self_attn.k_proj.weight", layer.k_gd, {key, width}, SlotKind::kMatrix);
    Add("self_attn.v_proj.weight", layer.v_gd, {key, width}, SlotKind::kMatrix);
    Add("self_attn.o_proj.weight", layer.o_dh, {width, query}, SlotKind::kMatrix);
    if (config_.attention_bias_qkv) {
      Add("self_attn.q_proj.bias", layer.q_bias_h, {query}, SlotKind::kBias);
      Add("self_attn.k_proj.bias", layer.k_bias_g, {key}, SlotKind::kBias);
      Add("self_attn.v_proj.bias", layer.v_bias_g, {key}, SlotKind::kBias);
    }
    if (config_.attention_bias_o) {
      Add("self_attn.o_proj.bias", layer.o_bias_d, {width}, SlotKind::kBias);
    }
    if (config_.qk_norm == ModelConfig::QkNorm::kNone) return;
    const bool full = config_.qk_norm == ModelConfig::QkNorm::kFull;
    Add("self_attn.q_norm.weight", layer.q_norm, {full ? query : config_.head_dim},
        SlotKind::kNorm);
    Add("self_attn.k_norm.weight", layer.k_norm, {full ? key : config_.head_dim}, SlotKind::kNorm);
  }

  void Sparse(LayerParameters& layer) {
    const std::string folder = config_.family == Family::kMixtral ? "block_sparse_moe." : "mlp.";
    Add(absl::StrCat(folder, "gate.weight"), layer.router_ed,
        {config_.num_experts, config_.hidden_size}, SlotKind::kMatrix);
    if (!config_.HasSharedExpert()) return;
    Mlp("mlp.shared_expert.", layer.shared, config_.shared_expert_size);
    Add("mlp.shared_expert_gate.weight", layer.shared_gate_1d, {1, config_.hidden_size},
        SlotKind::kMatrix);
  }

  void Mlp(const std::string& folder, MlpParameters& mlp, int64_t size) {
    const int64_t width = config_.hidden_size;
    Add(absl::StrCat(folder, "gate_proj.weight"), mlp.gate_fd, {size, width}, SlotKind::kMatrix);
    Add(absl::StrCat(folder, "up_proj.weight"), mlp.up_fd, {size, width}, SlotKind::kMatrix);
    Add(absl::StrCat(folder, "down_proj.weight"), mlp.down_df, {width, size}, SlotKind::kMatrix);
  }

 private:
  void Add(std::string_view name, at::Tensor& tensor, std::vector<int64_t> shape, SlotKind kind) {
    slots_.push_back({prefix_ + std::string(name), &tensor, std::move(shape), kind, layer_number_});
  }

  const ModelConfig& config_;
  const int64_t layer_number_;
  const std::string prefix_;
  std::vector<Slot>& slots_;
};

}  // namespace

std::vector<Slot> BackboneSlots(const ModelConfig& config, BackboneParameters& weights) {
  weights.layers.resize(static_cast<size_t>(config.num_layers));
  std::vector<Slot> slots;
  const std::vector<int64_t> embedding{config.vocab_size, config.hidden_size};
  slots.push_back({"model.embed_tokens.weight", &weights.embedding_vd, embedding,
                   SlotKind::kEmbedding, kEmbeddingStage});
  for (int64_t i = 0; i < config.num_layers; ++i) {
    LayerParameters& layer = weights.layers[static_cast<size_t>(i)];
    LayerSlots of_layer(config, i, slots);
    of_layer.Norms(layer);
    of_layer.Attention(layer);
    if (config.sparse_layers[static_cast<size_t>(i)]) {
      of_layer.Sparse(layer);
    } else {
      of_layer.Mlp("mlp.", layer.dense, config.dense_size);
    }
  }
  slots.push_back({"model.norm.weight",
                   &weights.final_norm_d,
                   {config.hidden_size},
                   SlotKind::kNorm,
                   kHeadStage});
  if (!config.tie_word_embeddings) {
    slots.push_back({"lm_head.weight", &weights.head_vd, embedding, SlotKind::kMatrix, kHeadStage});
  }
  return slots;
}

std::string SparsePrefix(const ModelConfig& config, int64_t layer) {
  return absl::StrCat("model.layers.", layer,
                      config.family == Family::kMixtral ? ".block_sparse_moe." : ".mlp.");
}

std::string ExpertTensorName(const ModelConfig& config, int64_t layer, int64_t expert,
                             ExpertMatrix matrix) {
  constexpr const char* kUsual[] = {"gate_proj", "up_proj", "down_proj"};
  constexpr const char* kMixtral[] = {"w1", "w3", "w2"};
  const auto* names = config.family == Family::kMixtral ? kMixtral : kUsual;
  return absl::StrCat(SparsePrefix(config, layer), "experts.", expert, ".",
                      names[static_cast<size_t>(matrix)], ".weight");
}

}  // namespace pcmoe::model
