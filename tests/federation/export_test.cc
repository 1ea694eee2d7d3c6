// tests/federation/export_test.cc: what a party exports are its own private weights and, bit for
// bit, the owners' units; what is written is what was fetched, or it is said.
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "party_threads.h"
#include "pcmoe/base/file.h"
#include "pcmoe/exchange/weights/model_fetch.h"
#include "pcmoe/train/export_writer.h"

namespace pcmoe::testing_federation {
namespace {

namespace fs = std::filesystem;
using exchange::PartMode;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr exchange::BackboneModes kPrivate{};
constexpr exchange::BackboneModes kDefault{PartMode::kAggregated, PartMode::kFrozen,
                                           PartMode::kPrivate};
constexpr exchange::BackboneModes kAggregated{PartMode::kAggregated, PartMode::kAggregated,
                                              PartMode::kAggregated};

Recipe ExportRecipe(const std::string& family, const exchange::BackboneModes& modes) {
  at::set_num_threads(1);
  Recipe recipe = SmallRecipe(family);
  recipe.weights = exchange::WeightsProvider::Options{};
  recipe.modes = modes;
  recipe.steps = 3;
  recipe.export_at_end = true;
  return recipe;
}

// A party's own private weights, and units from whoever has them.
Weights Whole(const std::vector<Outcome>& outcomes, size_t party) {
  Weights whole = outcomes[party].backbone;
  for (const Outcome& outcome : outcomes) {
    whole.insert(outcome.experts.begin(), outcome.experts.end());
    whole.insert(outcome.backbone.begin(), outcome.backbone.end());
  }
  return whole;
}

void ExpectOwnersWeights(const Recipe& recipe) {
  const auto outcomes = RunParties(recipe, LoopbackChannels(recipe.parties));
  for (const Outcome& outcome : outcomes) ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  for (size_t party = 0; party < outcomes.size(); ++party) {
    EXPECT_THAT(Differences(outcomes[party].exported, Whole(outcomes, party)), IsEmpty());
  }
  const bool one_model =
      recipe.modes.blocks == PartMode::kAggregated && recipe.modes.head == PartMode::kAggregated;
  EXPECT_EQ(Differences(outcomes[0].exported, outcomes[3].exported).empty(), one_model);
}

class Families : public testing::TestWithParam<const char*> {};

TEST_P(Families, AnExportHasTheOwnersWeightsBitForBit) {
  for (const auto& modes : {kPrivate, kDefault, kAggregated}) {
    ExpectOwnersWeights(ExportRecipe(GetParam(), modes));
  }
}

TEST_P(Families, ARunByRowsExportsAsWell) {
  Recipe recipe = ExportRecipe(GetParam(), kPrivate);
  recipe.weights.reset();
  ExpectOwnersWeights(recipe);
}

// What is exported are the fp32 masters, not what products take or what travels in training.
TEST_P(Families, BFloat16AndInt8LeaveAnExportExact) {
  Recipe recipe = ExportRecipe(GetParam(), kAggregated);
  recipe.run.precision = "bf16";
  recipe.weights->int8 = true;
  ExpectOwnersWeights(recipe);
}

INSTANTIATE_TEST_SUITE_P(Export, Families, testing::Values("olmoe", "qwen2_moe"));

absl::StatusOr<train::ExportSummary> WriteExport(const model::ModelConfig& config,
                                                 const model::NextStage& next,
                                                 const train::ExportRequest& request,
                                                 int64_t step) {
  train::ExportWriter writer(config, request);
  PCMOE_RETURN_IF_ERROR(writer.Write(next, step));
  return writer.Finish();
}

class Written : public testing::Test {
 protected:
  void SetUp() override {
    at::set_num_threads(1);
    folder_ = fs::temp_directory_path() / absl::StrCat("pcmoe_export_", ::getpid());
    fs::remove_all(folder_);
    fs::create_directories(folder_ / "base");
    for (const char* name : {"tokenizer_config.json", "chat_template.jinja"}) {
      std::ofstream(folder_ / "base" / name) << "bytes of " << name;
    }
    recipe_ = SmallRecipe("qwen2_moe");
    model_ = *train::PartyModel::Create(recipe_.config, recipe_.run, AllExperts(recipe_.config));
    request_ = {.out = folder_ / "out", .base_folder = folder_ / "base", .max_shard_bytes = 30000};
  }
  void TearDown() override { fs::remove_all(folder_); }

  // As a party without others gives it.
  model::NextStage Home() {
    const federation::Placement placement = *federation::Placement::Create(
        {},
        static_cast<size_t>(std::count(recipe_.config.sparse_layers.begin(),
                                       recipe_.config.sparse_layers.end(), true)),
        static_cast<size_t>(recipe_.config.num_experts), 1);
    map_ = std::make_unique<exchange::ExpertMap>(recipe_.config, placement);
    session_ = std::make_unique<exchange::Session>(nullptr, nullptr,
                                                   exchange::Session::Options{.names = {"self"}});
    fetch_ = std::make_unique<exchange::ModelFetch>(
        recipe_.config, *map_, exchange::BackboneOwners(recipe_.config, *map_, {}), model_->shard(),
        model_->backbone(), *session_);
    fetch_->Begin(7);
    return [this](int64_t stage) { return fetch_->Next(static_cast<int>(stage)); };
  }
  std::vector<std::string> Files(const fs::path& folder) const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder))
      names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  }

  fs::path folder_;
  Recipe recipe_;
  train::ExportRequest request_;
  std::unique_ptr<train::PartyModel> model_;
  std::unique_ptr<exchange::ExpertMap> map_;
  std::unique_ptr<exchange::Session> session_;
  std::unique_ptr<exchange::ModelFetch> fetch_;
};

TEST_F(Written, ShardsAnIndexAndTheBasesFilesByteForByte) {
  const auto summary = WriteExport(recipe_.config, Home(), request_, 7);
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_GT(summary->shards, 3U);
  EXPECT_EQ(summary->largest_difference, 0);
  EXPECT_EQ(*base::ReadFile(request_.out / "config.json"), recipe_.config.raw_json);
  EXPECT_EQ(*base::ReadFile(request_.out / "chat_template.jinja"), "bytes of chat_template.jinja");
  auto again = *train::PartyModel::Create(recipe_.config, recipe_.run, AllExperts(recipe_.config));
  ASSERT_TRUE(again->LoadWeights(request_.out).ok());
  EXPECT_THAT(Differences(ExpertWeights(*again), ExpertWeights(*model_)), IsEmpty());
  EXPECT_THAT(Differences(BackboneWeights(*again), BackboneWeights(*model_)), IsEmpty());
  EXPECT_EQ(Files(folder_), (std::vector<std::string>{"base", "out"}));
}

TEST_F(Written, AFolderThatIsNoExportStays) {
  fs::create_directories(request_.out);
  std::ofstream(request_.out / "thesis.txt") << "x";
  request_.replace = true;
  EXPECT_EQ(WriteExport(recipe_.config, Home(), request_, 7).status().code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(Files(request_.out), (std::vector<std::string>{"thesis.txt"}));
}

TEST_F(Written, AnEarlierExportGoesWhenItMay) {
  ASSERT_TRUE(WriteExport(recipe_.config, Home(), request_, 7).ok());
  EXPECT_EQ(WriteExport(recipe_.config, Home(), request_, 8).status().code(),
            absl::StatusCode::kAlreadyExists);
  request_.replace = true;
  request_.max_shard_bytes = model::kDefaultShardBytes;
  ASSERT_TRUE(WriteExport(recipe_.config, Home(), request_, 8).ok());
  EXPECT_TRUE(fs::exists(request_.out / "model.safetensors"));
  EXPECT_FALSE(fs::exists(request_.out / "model.safetensors.index.json"));
  EXPECT_THAT(*base::ReadFile(request_.out / train::kExportNote), HasSubstr("\"global_step\": 8"));
  EXPECT_EQ(Files(folder_), (std::vector<std::string>{"base", "out"}));
}

TEST_F(Written, NothingIsLeftOfAnExportThatFails) {
  const model::NextStage home = Home();
  const auto lost = [&](int64_t stage) -> absl::StatusOr<model::StageTensors> {
    if (stage == 2) return absl::UnavailableError("party c is lost");
    return home(stage);
  };
  EXPECT_EQ(WriteExport(recipe_.config, lost, request_, 7).status(),
            absl::UnavailableError("party c is lost"));
  EXPECT_EQ(Files(folder_), (std::vector<std::string>{"base"}));
}

TEST_F(Written, WeightsThatAreNotFiniteAreNoExport) {
  model_->backbone().mutable_weights().final_norm_d.fill_(std::nanf(""));
  EXPECT_THAT(WriteExport(recipe_.config, Home(), request_, 7).status().message(),
              HasSubstr("not finite"));
  EXPECT_EQ(Files(folder_), (std::vector<std::string>{"base"}));
}

// One bit of an expert that no random token may have used.
TEST_F(Written, ABitThatTheDiskChangedIsFound) {
  request_.max_shard_bytes = model::kDefaultShardBytes;
  train::ExportProof proof;
  const model::NextStage home = Home();
  ASSERT_TRUE(WriteExport(recipe_.config, home, request_, 7).ok());
  fetch_->Begin(7);
  proof.tokens_bs = recipe_.BatchesOf(0, 0)[0].tokens_bs;
  const auto note = [&](int64_t stage) -> absl::StatusOr<model::StageTensors> {
    PCMOE_ASSIGN_OR_RETURN(model::StageTensors tensors, home(stage));
    for (const auto& item : NamedStage(recipe_.config, stage, tensors)) {
      proof.digests[item.name] =
          base::DigestOf({static_cast<const char*>(item.tensor.contiguous().const_data_ptr()),
                          item.tensor.nbytes()});
    }
    return tensors;
  };
  proof.logits_bsv = *StagedLogits(recipe_.config, proof.tokens_bs, note);
  ASSERT_TRUE(VerifyExport(request_.out, recipe_.config, proof).ok());

  train::ExportProof other = proof;  // as if this model had given other logits
  other.logits_bsv = proof.logits_bsv.clone();
  other.logits_bsv.view({-1})[5] += 0.01F;
  EXPECT_THAT(VerifyExport(request_.out, recipe_.config, other).status().message(),
              HasSubstr("logits"));
  std::string bytes = *base::ReadFile(request_.out / "model.safetensors");
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  ASSERT_TRUE(base::WriteFileAtomically(request_.out / "model.safetensors", bytes).ok());
  const absl::Status found = VerifyExport(request_.out, recipe_.config, proof).status();
  EXPECT_EQ(found.code(), absl::StatusCode::kDataLoss) << found;
}

}  // namespace
}  // namespace pcmoe::testing_federation
