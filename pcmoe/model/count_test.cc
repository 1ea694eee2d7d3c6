// pcmoe/model/count_test.cc: parameter counts equal those published with the models.
#include <ATen/core/Tensor.h>

#include "gtest/gtest.h"
#include "pcmoe/model/parameters.h"

namespace pcmoe::model {
namespace {

ParameterCount CountOf(const char* json) {
  const auto config = ParseConfig(json, "test");
  EXPECT_TRUE(config.ok()) << config.status();
  return config.ok() ? CountParameters(*config) : ParameterCount();
}

// Published totals and active parameters, in billions; the sizes are those of the models' cards.
TEST(CountTest, EqualsPublishedTotals) {
  const ParameterCount olmoe = CountOf(R"({"model_type": "olmoe", "vocab_size": 50304,
    "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 16,
    "num_key_value_heads": 16, "num_experts": 64, "num_experts_per_tok": 8,
    "intermediate_size": 1024})");
  EXPECT_NEAR(static_cast<double>(olmoe.total), 6.919e9, 5e5);
  EXPECT_NEAR(static_cast<double>(olmoe.active), 1.28e9, 1e7);
  const ParameterCount mixtral = CountOf(R"({"model_type": "mixtral", "vocab_size": 32000,
    "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "num_local_experts": 8, "num_experts_per_tok": 2,
    "intermediate_size": 14336})");
  EXPECT_NEAR(static_cast<double>(mixtral.total), 46.703e9, 5e5);
  EXPECT_NEAR(static_cast<double>(mixtral.active), 12.88e9, 1e7);
  const ParameterCount qwen2 = CountOf(R"({"model_type": "qwen2_moe", "vocab_size": 151936,
    "hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 16,
    "num_key_value_heads": 16, "num_experts": 60, "num_experts_per_tok": 4,
    "moe_intermediate_size": 1408, "shared_expert_intermediate_size": 5632,
    "intermediate_size": 5632})");
  EXPECT_NEAR(static_cast<double>(qwen2.total), 14.316e9, 5e5);
  const ParameterCount qwen3 = CountOf(R"({"model_type": "qwen3_moe", "vocab_size": 151936,
    "hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 32,
    "num_key_value_heads": 4, "head_dim": 128, "num_experts": 128, "num_experts_per_tok": 8,
    "moe_intermediate_size": 768, "intermediate_size": 6144})");
  EXPECT_NEAR(static_cast<double>(qwen3.total), 30.532e9, 5e5);
  EXPECT_NEAR(static_cast<double>(qwen3.active), 3.35e9, 1e7);
}

TEST(CountTest, EqualsTheNumbersAllocated) {
  for (const char* tied : {"false", "true"}) {
    const std::string json = absl::StrCat(
        R"({"model_type": "qwen2_moe", "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 3,
        "num_attention_heads": 2, "num_key_value_heads": 1, "num_experts": 4,
        "num_experts_per_tok": 2, "moe_intermediate_size": 6, "intermediate_size": 10,
        "shared_expert_intermediate_size": 9, "mlp_only_layers": [1], "tie_word_embeddings": )",
        tied, "}");
    const auto config = ParseConfig(json, "test");
    ASSERT_TRUE(config.ok()) << config.status();
    int64_t backbone = 0;
    for (const NamedTensor& item : NamedBackbone(*config, EmptyBackbone(*config))) {
      backbone += item.tensor.numel();
    }
    int64_t experts = 0;
    for (const NamedTensor& item :
         NamedExperts(*config, EmptyExperts(*config, AllExperts(*config)))) {
      experts += item.tensor.numel();
    }
    const ParameterCount count = CountParameters(*config);
    EXPECT_EQ(count.backbone, backbone);
    EXPECT_EQ(count.experts, experts);
    EXPECT_EQ(count.experts, 2 * 4 * count.per_expert);
    EXPECT_EQ(count.total, backbone + experts);
    EXPECT_EQ(count.active, backbone + 2 * 2 * count.per_expert);
  }
}

}  // namespace
}  // namespace pcmoe::model
