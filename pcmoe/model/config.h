// pcmoe/model/config.h: the shape of a model, read from Hugging Face's config.json.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "pcmoe/base/status.h"

namespace pcmoe::model {

enum class Family { kOlmoe, kMixtral, kQwen2Moe, kQwen3Moe };

/// Everything the mathematics needs, whichever family it came from. Plain data.
struct ModelConfig {
  Family family = Family::kOlmoe;
  int64_t vocab_size = 0;   ///< V
  int64_t hidden_size = 0;  ///< D
  int64_t num_layers = 0;   ///< L
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t num_experts = 0;          ///< E, of every sparse layer
  int64_t experts_per_token = 0;    ///< K
  int64_t expert_size = 0;          ///< F, width of one routed expert
  int64_t shared_expert_size = 0;   ///< 0: none
  int64_t dense_size = 0;           ///< Width of the MLP of layers that are not sparse.
  std::vector<bool> sparse_layers;  ///< [L]; false: a dense MLP in the expert layer's place.
  bool norm_topk_prob = false;      ///< Chosen weights are divided by their sum.
  bool attention_bias_qkv = false;
  bool attention_bias_o = false;
  enum class QkNorm { kNone, kFull, kPerHead };  ///< Over all of q (olmoe) or each head (qwen3).
  QkNorm qk_norm = QkNorm::kNone;
  double clip_qkv = 0;  ///< 0: off; else q, k, v are clamped to +-clip_qkv.
  double rope_theta = 1e4;
  double rms_norm_eps = 1e-5;
  bool tie_word_embeddings = false;
  int64_t max_position_embeddings = 2048;
  double router_aux_loss_coef = 0;
  bool output_router_logits = false;  ///< transformers adds the balance loss only if this is set.
  double initializer_range = 0.02;
  int64_t pad_token_id = -1;  ///< Its embedding row starts at zero, gets no gradient; -1: none.
  std::string raw_json;       ///< config.json as read, byte for byte; written back unchanged.

  bool HasSharedExpert() const { return shared_expert_size > 0; }
  int64_t QueryWidth() const { return num_heads * head_dim; }
  int64_t KeyWidth() const { return num_kv_heads * head_dim; }

  /// INVALID_ARGUMENT naming every rule broken: sizes that are not positive, too large or do not
  /// divide, more experts per token than experts, no sparse layer.
  absl::Status Validate() const;
  bool operator==(const ModelConfig&) const = default;
};

/// "olmoe", "mixtral", "qwen2_moe", "qwen3_moe": Hugging Face's model_type.
std::string_view FamilyName(Family family);

/// Reads both spellings of every key (notes in docs/architecture.md); a key that is missing has the
/// default that transformers gives it, but the sizes of the model must be there. INVALID_ARGUMENT
/// names `origin`, every bad key, every rule broken (Validate), and every feature we do not compute
/// (sliding windows in use, rope scaling, attention dropout, router jitter, quantised weights, an
/// activation other than silu).
absl::StatusOr<ModelConfig> ParseConfig(std::string_view json, std::string_view origin);

/// `path` is config.json or a folder that has one.
absl::StatusOr<ModelConfig> LoadConfig(const std::filesystem::path& path);

}  // namespace pcmoe::model
