// pcmoe/model/config_test.cc: config.json in every spelling gives the model that transformers
// builds.
#include "pcmoe/model/config.h"

#include <nlohmann/json.hpp>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pcmoe::model {
namespace {

using Json = nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

Json Mixtral() {
  return Json::parse(R"({"model_type": "mixtral", "vocab_size": 64, "hidden_size": 32,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "num_local_experts": 8, "num_experts_per_tok": 2, "intermediate_size": 24})");
}

Json Qwen3() {
  return Json::parse(R"({"model_type": "qwen3_moe", "vocab_size": 64, "hidden_size": 32,
    "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12,
    "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
    "intermediate_size": 48, "norm_topk_prob": true})");
}

Json Olmoe() {
  return Json::parse(R"({"model_type": "olmoe", "vocab_size": 64, "hidden_size": 32,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_experts": 8, "num_experts_per_tok": 2,
    "intermediate_size": 24, "clip_qkv": null})");
}

Json With(Json config, const char* key, Json value) {
  config[key] = std::move(value);
  return config;
}

absl::StatusOr<ModelConfig> Parse(const Json& config) {
  return ParseConfig(config.dump(), "here/config.json");
}

TEST(ConfigTest, MissingKeysHaveTheDefaultsOfTransformers) {
  const auto mixtral = Parse(Mixtral());
  ASSERT_TRUE(mixtral.ok()) << mixtral.status();
  EXPECT_EQ(mixtral->rope_theta, 1e6);
  EXPECT_EQ(mixtral->rms_norm_eps, 1e-5);
  EXPECT_EQ(mixtral->head_dim, 8);
  EXPECT_EQ(mixtral->expert_size, 24);
  EXPECT_TRUE(mixtral->norm_topk_prob);
  EXPECT_FALSE(mixtral->attention_bias_qkv);
  EXPECT_EQ(mixtral->pad_token_id, -1);
  EXPECT_EQ(mixtral->max_position_embeddings, 131072);

  const auto olmoe = Parse(Olmoe());
  ASSERT_TRUE(olmoe.ok()) << olmoe.status();
  EXPECT_EQ(olmoe->num_kv_heads, 4);
  EXPECT_EQ(olmoe->qk_norm, ModelConfig::QkNorm::kFull);
  EXPECT_EQ(olmoe->clip_qkv, 0);
  EXPECT_EQ(olmoe->pad_token_id, 1);
  EXPECT_EQ(olmoe->router_aux_loss_coef, 0.01);
  EXPECT_FALSE(olmoe->norm_topk_prob);

  Json json = With(Qwen3(), "model_type", "qwen2_moe");
  json["shared_expert_intermediate_size"] = 40;
  json.erase("head_dim");
  const auto qwen2 = Parse(json);
  ASSERT_TRUE(qwen2.ok()) << qwen2.status();
  EXPECT_TRUE(qwen2->attention_bias_qkv);
  EXPECT_FALSE(qwen2->attention_bias_o);
  EXPECT_EQ(qwen2->shared_expert_size, 40);
  EXPECT_EQ(qwen2->qk_norm, ModelConfig::QkNorm::kNone);
}

TEST(ConfigTest, BothSpellingsOfAKeyMeanTheSame) {
  Json five = With(Mixtral(), "rope_parameters", {{"rope_theta", 5e5}, {"rope_type", "default"}});
  five["num_experts"] = 8;
  five["dtype"] = "bfloat16";
  five["eos_token_id"] = {1, 2};
  Json four = With(Mixtral(), "rope_theta", 5e5);
  four["torch_dtype"] = "bfloat16";
  four["rope_scaling"] = nullptr;
  four["eos_token_id"] = 2;
  auto a = Parse(five);
  auto b = Parse(four);
  ASSERT_TRUE(a.ok() && b.ok()) << a.status() << b.status();
  EXPECT_EQ(a->rope_theta, 5e5);
  a->raw_json = b->raw_json = "";
  EXPECT_EQ(*a, *b);

  Json renamed = With(Qwen3(), "num_local_experts", 8);
  renamed.erase("num_experts");
  EXPECT_EQ(Parse(renamed)->num_experts, 8);
  EXPECT_EQ(Parse(With(Mixtral(), "num_key_value_heads", nullptr))->num_kv_heads, 4);
  EXPECT_EQ(Parse(With(Olmoe(), "pad_token_id", nullptr))->pad_token_id, -1);
  EXPECT_EQ(Parse(With(Olmoe(), "pad_token_id", -1))->pad_token_id, 63);
}

TEST(ConfigTest, DenseLayersFollowStepAndList) {
  EXPECT_THAT(Parse(Qwen3())->sparse_layers, ElementsAre(true, true, true, true));
  EXPECT_THAT(Parse(With(Qwen3(), "decoder_sparse_step", 2))->sparse_layers,
              ElementsAre(false, true, false, true));
  const auto listed = Parse(With(Qwen3(), "mlp_only_layers", {0, 3, 9}));
  EXPECT_THAT(listed->sparse_layers, ElementsAre(false, true, true, false));
  EXPECT_EQ(listed->dense_size, 48);
}

TEST(ConfigTest, KeepsTheFileByteForByte) {
  const std::string text = "  " + Mixtral().dump(3) + "\n\n";
  EXPECT_EQ(ParseConfig(text, "x")->raw_json, text);
}

TEST(ConfigTest, RefusesFeaturesThatAreNotComputed) {
  const std::vector<std::pair<Json, const char*>> cases{
      {With(Mixtral(), "sliding_window", 4096), "sliding"},
      {With(Qwen3(), "use_sliding_window", true), "sliding"},
      {With(Qwen3(), "layer_types", {"sliding_attention"}), "layer_types"},
      {With(Mixtral(), "rope_scaling", {{"type", "yarn"}, {"factor", 4}}), "rope scaling"},
      {With(Mixtral(), "rope_parameters", {{"rope_type", "llama3"}}), "rope scaling"},
      {With(Mixtral(), "rope_parameters", {{"partial_rotary_factor", 0.5}}), "part of each head"},
      {With(Mixtral(), "attention_dropout", 0.1), "dropout"},
      {With(Mixtral(), "router_jitter_noise", 0.1), "jitter"},
      {With(Mixtral(), "hidden_act", "gelu"), "hidden_act"},
      {With(Mixtral(), "quantization_config", {{"bits", 4}}), "quantised"},
      {With(Mixtral(), "model_type", "llama"), "model_type"},
  };
  for (const auto& [json, message] : cases) {
    const auto config = Parse(json);
    EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument) << message;
    EXPECT_THAT(std::string(config.status().message()), HasSubstr(message));
    EXPECT_THAT(std::string(config.status().message()), HasSubstr("here/config.json"));
  }
  EXPECT_TRUE(Parse(With(Qwen3(), "sliding_window", 4096)).ok()) << "named but not in use";
}

TEST(ConfigTest, RefusesValuesThatMakeNoModel) {
  const std::vector<std::pair<Json, const char*>> cases{
      {With(Mixtral(), "hidden_size", 0), "hidden_size"},
      {With(Mixtral(), "hidden_size", "32"), "hidden_size"},
      {With(Mixtral(), "hidden_size", 32.5), "hidden_size"},
      {With(Mixtral(), "hidden_size", 18446744073709551615U), "hidden_size"},
      {With(Mixtral(), "vocab_size", -5), "vocab_size"},
      {With(Mixtral(), "num_hidden_layers", 1LL << 40), "num_hidden_layers"},
      {With(Mixtral(), "num_hidden_layers", -1), "num_hidden_layers"},
      {With(Mixtral(), "num_experts_per_tok", 9), "num_experts_per_tok"},
      {With(Mixtral(), "num_experts", 4), "differ"},
      {With(Mixtral(), "num_key_value_heads", 3), "multiple"},
      {With(Mixtral(), "head_dim", 7), "even"},
      {With(Olmoe(), "head_dim", 12), "must be hidden_size"},
      {With(Mixtral(), "rope_theta", 0), "rope_theta"},
      {With(Mixtral(), "rms_norm_eps", -1e-5), "rms_norm_eps"},
      {With(Mixtral(), "tie_word_embeddings", 1), "tie_word_embeddings"},
      {With(Mixtral(), "pad_token_id", 64), "pad_token_id"},
      {With(Mixtral(), "pad_token_id", -65), "pad_token_id"},
      {With(Mixtral(), "intermediate_size", nullptr), "intermediate_size"},
      {With(Qwen3(), "decoder_sparse_step", 0), "decoder_sparse_step"},
      {With(Qwen3(), "mlp_only_layers", {0, 1, 2, 3}), "no layer has experts"},
      {With(Qwen3(), "mlp_only_layers", {"a"}), "mlp_only_layers"},
      {With(Mixtral(), "rope_parameters", 3), "rope_parameters"},
      {With(With(Mixtral(), "rope_theta", 1e4), "rope_parameters", {{"rope_theta", 1e5}}),
       "differ"},
  };
  for (const auto& [json, message] : cases) {
    const auto config = Parse(json);
    EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument) << json;
    EXPECT_THAT(std::string(config.status().message()), HasSubstr(message));
  }
  const Json huge = With(With(Mixtral(), "hidden_size", 1 << 28), "vocab_size", 1 << 30);
  EXPECT_THAT(std::string(Parse(huge).status().message()), HasSubstr("parameters"));
}

TEST(ConfigTest, NamesEveryBrokenRuleAtOnce) {
  const auto config = Parse(With(With(Mixtral(), "vocab_size", 0), "rms_norm_eps", 0));
  EXPECT_THAT(std::string(config.status().message()), HasSubstr("vocab_size"));
  EXPECT_THAT(std::string(config.status().message()), HasSubstr("rms_norm_eps"));
}

TEST(ConfigTest, TextThatIsNoJsonObjectIsAnError) {
  for (const char* text : {"", "[]", "{", "null", "{\"model_type\": 3}", "\xff"}) {
    EXPECT_EQ(ParseConfig(text, "x").status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
  EXPECT_EQ(LoadConfig("/nonexistent").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace pcmoe::model
