// pcmoe/train/party_model_test.cc: which part of a party's model learns at which rate.
#include "pcmoe/train/party_model.h"

#include <ATen/ATen.h>
#include <unistd.h>

#include <map>

#include "gtest/gtest.h"
#include "pcmoe/base/file.h"
#include "pcmoe/tensor/safetensors.h"

namespace pcmoe::train {
namespace {

namespace fs = std::filesystem;

constexpr double kRate = 1e-3;

model::ModelConfig Config() {
  return *model::ParseConfig(R"({"model_type": "olmoe", "vocab_size": 50, "hidden_size": 16,
    "num_hidden_layers": 2, "num_attention_heads": 2, "num_experts": 4, "num_experts_per_tok": 2,
    "intermediate_size": 8})",
                             "test");
}

// How far one step moves each tensor when all gradients are 1: AdamW's first step is its rate.
std::map<std::string, double> StepsOf(const RunConfig& run, const model::Holdings& holdings) {
  const model::ModelConfig config = Config();
  const auto party = *PartyModel::Create(config, run, holdings);
  std::map<std::string, at::Tensor> weights;
  for (const auto& named : model::NamedBackbone(config, party->backbone().weights())) {
    weights[named.name] = named.tensor;
  }
  for (size_t l = 0; l < party->shard().weights().size(); ++l) {
    weights[absl::StrCat("gate_up.", l)] = party->shard().weights()[l].gate_up_efd;
    weights[absl::StrCat("down.", l)] = party->shard().weights()[l].down_edf;
    at::Tensor(party->shard().gradients()[l].gate_up_efd).fill_(1);
    at::Tensor(party->shard().gradients()[l].down_edf).fill_(1);
  }
  for (const auto& named : model::NamedBackbone(config, party->backbone().gradients())) {
    at::Tensor(named.tensor).fill_(1);
  }
  std::map<std::string, at::Tensor> before;
  for (const auto& [name, weight] : weights) before[name] = weight.clone();
  party->Step(kRate, 1.0, /*with_private=*/true);
  std::map<std::string, double> steps;
  for (const auto& [name, weight] : weights) {
    const at::Tensor moved = before[name] - weight;
    EXPECT_NEAR(moved.max().item<double>(), moved.min().item<double>(), 1e-2 * kRate) << name;
    steps[name] = moved.mean().item<double>() / kRate;
  }
  return steps;
}

TEST(PartyModelTest, PrivatePartsAndExpertsHaveRatesOfTheirOwnAndTheHeadHasNot) {
  RunConfig run;
  run.private_lr_scale = 0.25;
  run.expert_lr_scale = 3;
  for (const auto& [name, step] : StepsOf(run, {.experts = model::AllExperts(Config())})) {
    const bool head = name == "lm_head.weight" || name == "model.norm.weight";
    const bool expert = name.starts_with("gate_up.") || name.starts_with("down.");
    EXPECT_NEAR(step, head ? 1 : (expert ? 3 : 0.25), 0.01) << name;
  }
}

TEST(PartyModelTest, AnAggregatedBackboneHasTheRateItself) {
  RunConfig run;
  run.private_lr_scale = 0.25;
  model::Holdings holdings{.experts = model::AllExperts(Config())};
  holdings.blocks_l.assign(2, model::Part::kUnit);
  for (const auto& [name, step] : StepsOf(run, holdings)) {
    EXPECT_NEAR(step, name == "model.embed_tokens.weight" ? 0.25 : 1, 0.01) << name;
  }
}

TEST(PartyModelTest, AFrozenBackboneHasNoGradientsAndNoMoments) {
  model::Holdings holdings{.experts = model::AllExperts(Config()),
                           .blocks_l = {model::Part::kFrozen, model::Part::kFrozen},
                           .embedding = model::Part::kFrozen};
  for (const auto& [name, step] : StepsOf(RunConfig(), holdings)) {
    const bool backbone = name.starts_with("model.layers") || name == "model.embed_tokens.weight";
    EXPECT_NEAR(step, backbone ? 0 : 1, 0.01) << name;
  }
  const auto party = *PartyModel::Create(Config(), RunConfig(), holdings);
  EXPECT_EQ(model::NamedBackbone(Config(), party->backbone().gradients()).size(), 2U);
  const fs::path folder = fs::temp_directory_path() / absl::StrCat("pcmoe-frozen-", getpid());
  ASSERT_TRUE(base::CreateFolder(folder, 0700).ok());
  ASSERT_TRUE(party->Save(folder).ok());
  const auto saved = tensor::SafetensorsReader::Open(folder / "optimizer.safetensors");
  ASSERT_TRUE(saved.ok()) << saved.status();
  // Two moments of head, last norm and two tensors of experts a layer; and the steps.
  EXPECT_EQ(saved->tensors().size(), 2 * (2 + 4) + 1U);
  EXPECT_TRUE(party->Load(folder).ok());
  fs::remove_all(folder);
}

TEST(PartyModelTest, WhatIsNotSaidIsTheRateItself) {
  for (const auto& [name, step] : StepsOf(RunConfig(), {.experts = model::AllExperts(Config())})) {
    EXPECT_NEAR(step, 1, 0.01) << name;
  }
}

}  // namespace
}  // namespace pcmoe::train
