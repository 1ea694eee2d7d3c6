// pcmoe/audit/final_model_test.cc: a model that learned a text by heart tells so, the base does
// not.
#include "pcmoe/audit/final_model.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "pcmoe/tensor/safetensors.h"

namespace pcmoe::audit {
namespace {

namespace fs = std::filesystem;

constexpr int32_t kVocab = 32;
constexpr size_t kLength = 24;

model::ModelConfig Config() {
  model::ModelConfig config;
  config.vocab_size = kVocab;
  config.hidden_size = 32;
  config.expert_size = 32;
  config.num_layers = 1;
  config.num_experts = 4;
  config.experts_per_token = 2;
  config.sparse_layers = {true};
  config.num_heads = config.num_kv_heads = 2;
  config.head_dim = 16;
  config.initializer_range = 0.1;
  return config;
}

std::unique_ptr<BaseModel> NewModel() {
  model::BackboneParameters backbone = model::EmptyBackbone(Config());
  model::ExpertParameters experts = model::EmptyExperts(Config(), model::AllExperts(Config()));
  model::Initialise(Config(), 1, backbone);
  model::Initialise(Config(), 1, experts);
  return std::make_unique<BaseModel>(Config(), std::move(backbone), std::move(experts));
}

std::vector<data::Sequence> Documents(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<data::Sequence> documents(count);
  for (data::Sequence& document : documents) {
    for (size_t t = 0; t < kLength; ++t) {
      document.tokens.push_back(static_cast<int32_t>(random() % kVocab));
    }
    document.labels = document.tokens;
    document.document_starts = {0};
  }
  return documents;
}

// Steps by the sign of the gradient's own moving mean: enough to learn a few texts by heart.
void LearnByHeart(BaseModel& model, std::span<const data::Sequence> documents) {
  std::vector<at::Tensor> mean, square;
  for (int step = 1; step <= 150; ++step) {
    ASSERT_TRUE(model.Gradients(documents).ok());
    const auto weights = [&] {
      auto all = model::NamedBackbone(model.config(), model.backbone().mutable_weights());
      for (auto& one : model::NamedExperts(model.config(), model.shard().mutable_weights())) {
        all.push_back(one);
      }
      return all;
    }();
    auto gradients = model::NamedBackbone(model.config(), model.backbone().gradients());
    for (auto& one : model::NamedExperts(model.config(), model.shard().gradients())) {
      gradients.push_back(one);
    }
    ASSERT_EQ(weights.size(), gradients.size());
    for (size_t i = 0; i < weights.size(); ++i) {
      const at::Tensor g = gradients[i].tensor;
      if (mean.size() <= i) {
        mean.push_back(g.clone() * 0);
        square.push_back(g.clone() * 0);
      }
      mean[i] = mean[i] * 0.9 + g * 0.1;
      square[i] = square[i] * 0.99 + g * g * 0.01;
      const double m = 1 - std::pow(0.9, step);
      const double s = 1 - std::pow(0.99, step);
      at::Tensor weight = weights[i].tensor;
      weight.sub_(mean[i] / m / ((square[i] / s).sqrt() + 1e-9) * 5e-3);
    }
    model.backbone().RefreshComputeWeights();
    model.shard().RefreshComputeWeights();
  }
}

Truth TruthOf(std::span<const data::Sequence> documents) {
  const fs::path folder = fs::path(testing::TempDir()) / "audit_final_truth";
  fs::remove_all(folder);
  auto writer = TruthWriter::Create(folder);
  EXPECT_TRUE(writer.ok());
  TrueBatch batch{.sequences = static_cast<int64_t>(documents.size())};
  for (const data::Sequence& one : documents) {
    batch.tokens.insert(batch.tokens.end(), one.tokens.begin(), one.tokens.end());
    batch.labels.insert(batch.labels.end(), one.labels.begin(), one.labels.end());
  }
  writer->AddBatch(batch);
  EXPECT_TRUE(writer->Finish().ok());
  return *Truth::Load(folder / kTruthFile);
}

TEST(FinalModelTest, WhatWasLearnedByHeartIsToldAndContinued) {
  at::set_num_threads(1);
  const std::vector<data::Sequence> members = Documents(12, 1), others = Documents(12, 2);
  std::vector<data::Sequence> text = members;
  text.insert(text.end(), others.begin(), others.end());
  const auto base = NewModel();
  const auto learned = NewModel();
  LearnByHeart(*learned, members);
  std::vector<std::string> warnings;
  const auto found =
      AttackFinalModel({learned.get(), 1, text}, TruthOf(members), *base, 12, 1, warnings);
  ASSERT_TRUE(found.ok());
  ASSERT_EQ(found->size(), 2U);
  EXPECT_GT((*found)[0].estimate.value, 0.95);
  EXPECT_GT((*found)[1].estimate.value, 0.4);
  for (const auto& [name, value] : (*found)[1].baselines) EXPECT_LT(value, 0.15) << name;

  const auto nothing =
      AttackFinalModel({base.get(), 1, text}, TruthOf(members), *base, 12, 1, warnings);
  ASSERT_TRUE(nothing.ok());
  EXPECT_DOUBLE_EQ((*nothing)[0].estimate.value, 0.5);  // the same losses: all ties
  EXPECT_LT((*nothing)[1].estimate.value, 0.15);
  EXPECT_TRUE(warnings.empty());
  // Nothing that was not trained on: no attack, a sentence.
  const auto few =
      AttackFinalModel({learned.get(), 1, members}, TruthOf(members), *base, 12, 1, warnings);
  EXPECT_TRUE(few.ok() && few->empty());
  EXPECT_EQ(warnings.size(), 1U);
}

TEST(FinalModelTest, TheModelIsPutTogetherFromTheNewestCommonCheckpoint) {
  const auto whole = NewModel();
  std::vector<model::NamedTensor> first, second;
  for (auto& one : model::NamedBackbone(Config(), whole->backbone().weights())) {
    first.push_back(one);
    second.push_back({one.name, one.tensor + 1});  // another party's backbone
  }
  bool turn = false;
  for (auto& one : model::NamedExperts(Config(), whole->shard().weights())) {
    (turn ? first : second).push_back(one);
    turn = !turn;
  }
  const fs::path root = fs::path(testing::TempDir()) / "audit_final_checkpoints";
  fs::remove_all(root);
  const std::vector<fs::path> outputs = {root / "b", root / "c"};
  EXPECT_TRUE(LastCheckpoints(outputs).empty());
  for (const char* name :
       {"b/checkpoint-2", "c/checkpoint-2", "b/checkpoint-9", "b/checkpoint-x"}) {
    fs::create_directories(root / name);
  }
  const std::vector<fs::path> folders = LastCheckpoints(outputs);
  ASSERT_EQ(folders.size(), 2U);
  EXPECT_EQ(folders[0], root / "b" / "checkpoint-2");
  ASSERT_TRUE(tensor::WriteSafetensors(folders[0] / "model.safetensors", first).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(AssembleModel(Config(), folders).status()));
  ASSERT_TRUE(tensor::WriteSafetensors(folders[1] / "model.safetensors", second).ok());
  const auto model = AssembleModel(Config(), folders);
  ASSERT_TRUE(model.ok()) << model.status();
  const std::vector<data::Sequence> documents = Documents(2, 3);
  EXPECT_EQ(*(*model)->Losses(documents), *whole->Losses(documents));
}

}  // namespace
}  // namespace pcmoe::audit
