// pcmoe/model/config_validate.cc: the rules that the sizes of a model obey (config.h).
#include <algorithm>
#include <cmath>

#include "absl/strings/str_join.h"
#include "pcmoe/model/config.h"

namespace pcmoe::model {
namespace {

constexpr int64_t kMaxSize = int64_t{1} << 31;
// Far above any model, and low enough that byte counts fit 63 bits.
constexpr double kMaxParameters = 1e15;

double TensorSizes(const ModelConfig& config) {
  const auto number = [](int64_t value) { return static_cast<double>(value); };
  const double width = number(config.hidden_size);
  const double attention = 2 * width * (number(config.QueryWidth()) + number(config.KeyWidth()));
  const double experts = number(config.num_experts) * (3 * number(config.expert_size) + 1) * width;
  const double other = 3 * width * number(config.shared_expert_size + config.dense_size);
  return 2 * number(config.vocab_size) * width +
         number(config.num_layers) * (attention + experts + other);
}

}  // namespace

absl::Status ModelConfig::Validate() const {
  std::vector<std::string> broken;
  const auto require = [&](bool holds, std::string what) {
    if (!holds) broken.push_back(std::move(what));
  };
  const auto size = [&](int64_t value, const char* name, int64_t least = 1) {
    require(value >= least && value < kMaxSize,
            absl::StrCat(name, " is ", value, "; it must be from ", least, " to below 2^31"));
  };
  size(vocab_size, "vocab_size");
  size(hidden_size, "hidden_size");
  size(num_layers, "num_hidden_layers");
  size(num_heads, "num_attention_heads");
  size(num_kv_heads, "num_key_value_heads");
  size(head_dim, "head_dim");
  size(num_experts, "the number of experts");
  size(experts_per_token, "num_experts_per_tok");
  size(expert_size, "the width of an expert");
  size(max_position_embeddings, "max_position_embeddings");
  size(shared_expert_size, "shared_expert_intermediate_size", 0);
  const bool any_dense = std::count(sparse_layers.begin(), sparse_layers.end(), false) > 0;
  size(dense_size, "intermediate_size", any_dense ? 1 : 0);
  const auto finite = [&](double value, const char* name, bool zero_too) {
    require(std::isfinite(value) && (value > 0 || (zero_too && value == 0)),
            absl::StrCat(name, zero_too ? " must not be negative" : " must be positive"));
  };
  finite(rope_theta, "rope_theta", false);
  finite(rms_norm_eps, "rms_norm_eps", false);
  finite(initializer_range, "initializer_range", false);
  finite(router_aux_loss_coef, "router_aux_loss_coef", true);
  finite(clip_qkv, "clip_qkv", true);
  if (broken.empty()) {
    require(num_heads % num_kv_heads == 0,
            "num_attention_heads must be a multiple of num_key_value_heads");
    require(head_dim % 2 == 0, "head_dim must be even (rotary embedding)");
    require(experts_per_token <= num_experts, "num_experts_per_tok exceeds the number of experts");
    require(static_cast<int64_t>(sparse_layers.size()) == num_layers,
            "sparse_layers must have one entry a layer");
    require(std::count(sparse_layers.begin(), sparse_layers.end(), true) > 0,
            "no layer has experts");
    require(qk_norm != QkNorm::kFull || QueryWidth() == hidden_size,
            "head_dim times num_attention_heads must be hidden_size");
    require(pad_token_id >= -1 && pad_token_id < vocab_size,
            "pad_token_id must be below vocab_size");
    require(TensorSizes(*this) < kMaxParameters, "the model has more than 10^15 parameters");
  }
  if (broken.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrJoin(broken, "; "));
}

}  // namespace pcmoe::model
