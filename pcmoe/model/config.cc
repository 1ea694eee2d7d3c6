// pcmoe/model/config.cc: reads config.json (config.h); the rules of sizes are in
// config_validate.cc.
#include "pcmoe/model/config.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_join.h"
#include "pcmoe/base/file.h"

namespace pcmoe::model {
namespace {

using Json = nlohmann::json;
using Keys = std::initializer_list<const char*>;

constexpr uint64_t kMaxConfigBytes = 1 << 20;
constexpr int64_t kMaxLayers = 4096;

// What a family's class in transformers assumes when config.json is silent.
struct Defaults {
  Family family;
  const char* model_type;
  int64_t kv_heads;  // 0: as many as heads.
  int64_t max_positions;
  double rope_theta, norm_eps, aux_coef;
  int64_t pad_token_id;
};
constexpr Defaults kDefaults[] = {
    {Family::kOlmoe, "olmoe", 0, 4096, 1e4, 1e-5, 0.01, 1},
    {Family::kMixtral, "mixtral", 8, 131072, 1e6, 1e-5, 0.001, -1},
    {Family::kQwen2Moe, "qwen2_moe", 16, 32768, 1e4, 1e-6, 0.001, -1},
    {Family::kQwen3Moe, "qwen3_moe", 4, 32768, 1e4, 1e-6, 0.001, -1},
};

// Reads values under any of their spellings and collects everything that is wrong.
class KeyReader {
 public:
  explicit KeyReader(const Json& object) : object_(object) {}

  void Problem(std::string what) { problems_.push_back(std::move(what)); }
  const std::vector<std::string>& problems() const { return problems_; }

  // The value of the first spelling present and not null; two that differ are a problem.
  const Json* Find(Keys keys) {
    const Json* found = nullptr;
    for (const char* key : keys) {
      const auto value = object_.find(key);
      if (value == object_.end() || value->is_null()) continue;
      if (found != nullptr && *found != *value) {
        Problem(absl::StrCat(*keys.begin(), " and ", key, " differ"));
      }
      if (found == nullptr) found = &*value;
    }
    return found;
  }
  bool HasKey(const char* key) const { return object_.contains(key); }

  int64_t Size(Keys keys) {
    if (Find(keys) == nullptr) Problem(absl::StrCat(*keys.begin(), " is missing"));
    return Int(keys, 0);
  }
  int64_t Int(Keys keys, int64_t fallback) {
    const Json* value = Find(keys);
    if (value == nullptr) return fallback;
    if (!value->is_number_integer() ||
        (value->is_number_unsigned() && value->get<uint64_t>() > INT64_MAX)) {
      Problem(absl::StrCat(*keys.begin(), " is not a whole number"));
      return fallback;
    }
    return value->get<int64_t>();
  }
  double Number(Keys keys, double fallback) {
    const Json* value = Find(keys);
    if (value == nullptr) return fallback;
    if (!value->is_number()) {
      Problem(absl::StrCat(*keys.begin(), " is not a number"));
      return fallback;
    }
    return value->get<double>();
  }
  bool Bool(Keys keys, bool fallback) {
    const Json* value = Find(keys);
    if (value == nullptr) return fallback;
    if (!value->is_boolean()) {
      Problem(absl::StrCat(*keys.begin(), " is not true or false"));
      return fallback;
    }
    return value->get<bool>();
  }
  std::string Text(Keys keys, std::string fallback) {
    const Json* value = Find(keys);
    if (value == nullptr) return fallback;
    if (!value->is_string()) {
      Problem(absl::StrCat(*keys.begin(), " is not a string"));
      return fallback;
    }
    return value->get<std::string>();
  }

 private:
  const Json& object_;
  std::vector<std::string> problems_;
};

// rope_theta beside the other keys (transformers 4) or within rope_parameters (5).
void ReadRope(KeyReader& reader, double fallback, ModelConfig& config) {
  config.rope_theta = reader.Number({"rope_theta"}, fallback);
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    const Json* rope = reader.Find({key});
    if (rope == nullptr) continue;
    if (!rope->is_object()) {
      reader.Problem(absl::StrCat(key, " is not an object"));
      continue;
    }
    KeyReader inner(*rope);
    const std::string type = inner.Text({"rope_type", "type"}, "default");
    if (type != "default")
      reader.Problem(absl::StrCat("rope scaling (", key, ") is not supported"));
    if (inner.Number({"partial_rotary_factor"}, 1) != 1) {
      reader.Problem("rotary embedding of a part of each head is not supported");
    }
    if (inner.Find({"rope_theta"}) != nullptr) {
      config.rope_theta = inner.Number({"rope_theta"}, fallback);
      if (reader.Number({"rope_theta"}, config.rope_theta) != config.rope_theta) {
        reader.Problem(absl::StrCat("rope_theta and that of ", key, " differ"));
      }
    }
    for (const std::string& problem : inner.problems()) {
      reader.Problem(absl::StrCat(key, ".", problem));
    }
  }
  if (reader.Number({"partial_rotary_factor"}, 1) != 1) {
    reader.Problem("rotary embedding of a part of each head is not supported");
  }
}

void RefuseUnsupported(KeyReader& reader, Family family) {
  const std::string activation = reader.Text({"hidden_act"}, "silu");
  if (activation != "silu" && activation != "swish") {
    reader.Problem("hidden_act is not silu; other activations are not supported");
  }
  if (reader.Number({"attention_dropout"}, 0) != 0) {
    reader.Problem("attention_dropout is not 0; dropout is not supported");
  }
  if (reader.Number({"router_jitter_noise"}, 0) != 0) {
    reader.Problem("router_jitter_noise is not 0; noise in the router is not supported");
  }
  // The Qwen families name a window that only use_sliding_window turns on.
  const bool qwen = family == Family::kQwen2Moe || family == Family::kQwen3Moe;
  if (qwen ? reader.Bool({"use_sliding_window"}, false)
           : reader.Find({"sliding_window"}) != nullptr) {
    reader.Problem("sliding-window attention is not supported");
  }
  if (const Json* types = reader.Find({"layer_types"}); types != nullptr) {
    const bool all_full =
        types->is_array() && std::all_of(types->begin(), types->end(),
                                         [](const Json& type) { return type == "full_attention"; });
    if (!all_full) reader.Problem("layer_types has a layer without full attention");
  }
  if (reader.Find({"quantization_config"}) != nullptr) {
    reader.Problem("quantization_config is set; quantised weights are not supported");
  }
}

// Which layers have experts: mlp_only_layers do not, nor those between every decoder_sparse_step.
void ReadSparseLayers(KeyReader& reader, ModelConfig& config) {
  if (config.num_layers < 1 || config.num_layers > kMaxLayers) {
    reader.Problem(absl::StrCat("num_hidden_layers is not between 1 and ", kMaxLayers));
    return;
  }
  config.sparse_layers.assign(static_cast<size_t>(config.num_layers), true);
  if (config.family == Family::kOlmoe || config.family == Family::kMixtral) return;
  const int64_t every = reader.Int({"decoder_sparse_step"}, 1);
  if (every < 1) return reader.Problem("decoder_sparse_step is not positive");
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    config.sparse_layers[static_cast<size_t>(layer)] = (layer + 1) % every == 0;
  }
  const Json* dense = reader.Find({"mlp_only_layers"});
  if (dense == nullptr) return;
  if (!dense->is_array()) return reader.Problem("mlp_only_layers is not a list");
  for (const Json& layer : *dense) {
    if (!layer.is_number_unsigned()) {
      return reader.Problem("mlp_only_layers has an entry that is no layer");
    }
    const uint64_t index = layer.get<uint64_t>();
    if (index < config.sparse_layers.size()) config.sparse_layers[index] = false;
  }
}

void ReadFamily(KeyReader& reader, ModelConfig& config) {
  switch (config.family) {
    case Family::kOlmoe:
      config.expert_size = reader.Size({"intermediate_size"});
      config.qk_norm = ModelConfig::QkNorm::kFull;
      config.clip_qkv = reader.Number({"clip_qkv"}, 0);
      config.norm_topk_prob = reader.Bool({"norm_topk_prob"}, false);
      config.attention_bias_qkv = reader.Bool({"attention_bias"}, false);
      config.attention_bias_o = config.attention_bias_qkv;
      return;
    case Family::kMixtral:
      config.expert_size = reader.Size({"intermediate_size"});
      config.norm_topk_prob = true;
      return;
    case Family::kQwen2Moe:
      config.shared_expert_size = reader.Size({"shared_expert_intermediate_size"});
      config.attention_bias_qkv = reader.Bool({"qkv_bias"}, true);
      break;
    case Family::kQwen3Moe:
      config.qk_norm = ModelConfig::QkNorm::kPerHead;
      config.attention_bias_qkv = reader.Bool({"attention_bias"}, false);
      config.attention_bias_o = config.attention_bias_qkv;
      break;
  }
  config.expert_size = reader.Size({"moe_intermediate_size"});
  config.norm_topk_prob = reader.Bool({"norm_topk_prob"}, false);
  const bool any_dense =
      std::count(config.sparse_layers.begin(), config.sparse_layers.end(), false);
  config.dense_size = any_dense ? reader.Size({"intermediate_size"}) : 0;
}

void ReadCommon(KeyReader& reader, const Defaults& defaults, ModelConfig& config) {
  config.family = defaults.family;
  config.vocab_size = reader.Size({"vocab_size"});
  config.hidden_size = reader.Size({"hidden_size"});
  config.num_layers = reader.Size({"num_hidden_layers"});
  config.num_heads = reader.Size({"num_attention_heads"});
  // A null means "as many as heads"; only a missing key takes the family's own number.
  const int64_t silent = defaults.kv_heads == 0 || reader.HasKey("num_key_value_heads")
                             ? config.num_heads
                             : defaults.kv_heads;
  config.num_kv_heads = reader.Int({"num_key_value_heads"}, silent);
  const int64_t even_split = config.num_heads > 0 && config.hidden_size % config.num_heads == 0
                                 ? config.hidden_size / config.num_heads
                                 : 0;
  config.head_dim = reader.Int({"head_dim"}, even_split);
  config.num_experts = reader.Size({"num_experts", "num_local_experts"});
  config.experts_per_token = reader.Size({"num_experts_per_tok"});
  config.rms_norm_eps = reader.Number({"rms_norm_eps"}, defaults.norm_eps);
  config.tie_word_embeddings = reader.Bool({"tie_word_embeddings"}, false);
  config.max_position_embeddings = reader.Int({"max_position_embeddings"}, defaults.max_positions);
  config.router_aux_loss_coef = reader.Number({"router_aux_loss_coef"}, defaults.aux_coef);
  config.output_router_logits = reader.Bool({"output_router_logits"}, false);
  config.initializer_range = reader.Number({"initializer_range"}, 0.02);
  const int64_t no_pad = reader.HasKey("pad_token_id") ? -1 : defaults.pad_token_id;
  const bool has_pad = reader.Find({"pad_token_id"}) != nullptr;
  config.pad_token_id = reader.Int({"pad_token_id"}, no_pad);
  // As torch counts a padding row: a negative one from the end.
  if (has_pad && config.pad_token_id < 0) config.pad_token_id += config.vocab_size;
  if (has_pad && config.pad_token_id < 0) reader.Problem("pad_token_id is no token");
}

}  // namespace

std::string_view FamilyName(Family family) {
  for (const Defaults& defaults : kDefaults) {
    if (defaults.family == family) return defaults.model_type;
  }
  return "unknown";
}

absl::StatusOr<ModelConfig> ParseConfig(std::string_view json, std::string_view origin) {
  const std::string where(origin);
  const auto refuse = [&](const std::string& what) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": ", what));
  };
  const Json object = Json::parse(json.begin(), json.end(), nullptr, /*allow_exceptions=*/false);
  if (object.is_discarded() || !object.is_object()) return refuse("is not a JSON object");
  KeyReader reader(object);
  const std::string type = reader.Text({"model_type"}, "");
  const auto* defaults =
      std::find_if(std::begin(kDefaults), std::end(kDefaults),
                   [&](const Defaults& item) { return item.model_type == type; });
  if (defaults == std::end(kDefaults)) {
    return refuse("model_type is not one of olmoe, mixtral, qwen2_moe, qwen3_moe");
  }
  ModelConfig config;
  ReadCommon(reader, *defaults, config);
  ReadRope(reader, defaults->rope_theta, config);
  ReadSparseLayers(reader, config);
  ReadFamily(reader, config);
  RefuseUnsupported(reader, config.family);
  if (!reader.problems().empty()) return refuse(absl::StrJoin(reader.problems(), "; "));
  config.raw_json = std::string(json);
  const absl::Status valid = config.Validate();
  if (!valid.ok()) return WithContext(valid, where);
  return config;
}

absl::StatusOr<ModelConfig> LoadConfig(const std::filesystem::path& path) {
  std::error_code ignored;
  const std::filesystem::path file =
      std::filesystem::is_directory(path, ignored) ? path / "config.json" : path;
  PCMOE_ASSIGN_OR_RETURN(const std::string json, base::ReadFile(file, kMaxConfigBytes));
  return ParseConfig(json, file.string());
}

}  // namespace pcmoe::model
