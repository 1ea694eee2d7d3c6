// pcmoe/model/checkpoint_test.cc: checkpoints go round, to transformers and back (tests/parity has
// its side of it, checkpoint_oracle.py).
#include <ATen/ATen.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <map>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "pcmoe/base/file.h"
#include "pcmoe/model/parameters.h"

namespace pcmoe::model {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using Tensors = std::map<std::string, at::Tensor>;

const std::vector<std::string> kVariants{
    "olmoe",     "olmoe_tied",     "olmoe_bias_norm", "mixtral",        "mixtral_tied",
    "qwen2_moe", "qwen2_moe_tied", "qwen3_moe",       "qwen3_moe_step", "qwen3_moe_tied"};

struct Model {
  ModelConfig config;
  BackboneParameters backbone;
  ExpertParameters experts;

  Tensors All() const {
    Tensors all;
    for (const NamedTensor& item : NamedBackbone(config, backbone)) all[item.name] = item.tensor;
    for (const NamedTensor& item : NamedExperts(config, experts)) all[item.name] = item.tensor;
    return all;
  }
};

Model EmptyModel(const ModelConfig& config, const ExpertSelection& selection,
                 at::ScalarType dtype = at::kFloat) {
  return {config, EmptyBackbone(config, dtype), EmptyExperts(config, selection, dtype)};
}

void ExpectEqual(const Tensors& got, const Tensors& wanted, const std::string& what) {
  EXPECT_EQ(got.size(), wanted.size()) << what;
  for (const auto& [name, tensor] : got) {
    ASSERT_TRUE(wanted.contains(name)) << what << " " << name;
    EXPECT_TRUE(at::equal(tensor, wanted.at(name))) << what << " " << name;
  }
}

Tensors FileTensors(const fs::path& path) {
  const auto reader = tensor::SafetensorsReader::Open(path);
  EXPECT_TRUE(reader.ok()) << reader.status();
  Tensors all;
  for (const auto& [name, entry] : reader->tensors()) all[name] = *reader->Load(name);
  return all;
}

int Oracle(const std::string& arguments) {
  return std::system(absl::StrCat(PCMOE_PYTHON, " ", PCMOE_SOURCE_DIR,
                                  "/tests/parity/checkpoint_oracle.py ", arguments)
                         .c_str());
}

// transformers writes one folder of each kind for every variant, once for all tests.
class CheckpointTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = fs::temp_directory_path() / absl::StrCat("pcmoe_checkpoint_", ::getpid());
    fs::create_directories(folder_);
    std::string arguments = absl::StrCat("make ", folder_.string());
    for (const std::string& variant : kVariants) absl::StrAppend(&arguments, " ", variant);
    ASSERT_EQ(Oracle(absl::StrCat(arguments, " 2>/dev/null")), 0);
  }
  static void TearDownTestSuite() { fs::remove_all(folder_); }

  static Model Loaded(const fs::path& folder) {
    const auto config = LoadConfig(folder);
    EXPECT_TRUE(config.ok()) << config.status();
    Model model = EmptyModel(*config, AllExperts(*config));
    const absl::Status status = LoadCheckpoint(folder, model.config, model.backbone, model.experts);
    EXPECT_TRUE(status.ok()) << status;
    return model;
  }

  static fs::path folder_;
};
fs::path CheckpointTest::folder_;

TEST_F(CheckpointTest, LoadsWhatTransformersWrites) {
  for (const std::string& variant : kVariants) {
    const Tensors wanted = FileTensors(folder_ / variant / "expected.safetensors");
    for (const char* kind : {"per_expert", "fused", "sharded"}) {
      const std::string what = absl::StrCat(variant, " ", kind);
      ExpectEqual(Loaded(folder_ / variant / kind).All(), wanted, what);
    }
  }
}

TEST_F(CheckpointTest, TransformersLoadsWhatWeWrite) {
  std::string arguments = "check";
  for (const std::string& variant : kVariants) {
    const fs::path base = folder_ / variant / "per_expert";
    Model model = EmptyModel(*LoadConfig(base), AllExperts(*LoadConfig(base)));
    Initialise(model.config, 5, model.backbone);
    Initialise(model.config, 5, model.experts);
    const fs::path out = folder_ / absl::StrCat("ours_", variant);
    const uint64_t shard_bytes = variant == "qwen3_moe" ? 40000 : uint64_t{5} << 30;
    const absl::Status saved =
        SaveCheckpoint(out, model.config, model.backbone, model.experts, base, shard_bytes);
    ASSERT_TRUE(saved.ok()) << saved;
    EXPECT_EQ(*base::ReadFile(out / "config.json"), *base::ReadFile(base / "config.json"));
    EXPECT_EQ(*base::ReadFile(out / "generation_config.json"),
              *base::ReadFile(base / "generation_config.json"));
    ExpectEqual(Loaded(out).All(), model.All(), variant);
    absl::StrAppend(&arguments, " ", out.string());
  }
  EXPECT_TRUE(fs::exists(folder_ / "ours_qwen3_moe" / "model.safetensors.index.json"));
  EXPECT_EQ(Oracle(arguments), 0);
}

TEST_F(CheckpointTest, AnOwnerReadsItsExpertsOnlyFromEveryKind) {
  for (const char* kind : {"per_expert", "fused", "sharded"}) {
    const fs::path folder = folder_ / "mixtral" / kind;
    const Model whole = Loaded(folder);
    const ExpertSelection some = [](int64_t layer) {
      return layer == 1 ? std::vector<int64_t>{} : std::vector<int64_t>{1, 6};
    };
    Model model = EmptyModel(whole.config, some, at::kBFloat16);

    ASSERT_TRUE(LoadCheckpoint(folder, model.config, model.backbone, model.experts).ok());

    const at::Tensor rows =
        whole.experts[2].gate_up_efd.index_select(0, at::tensor({int64_t{1}, int64_t{6}}));
    EXPECT_TRUE(at::equal(model.experts[2].gate_up_efd, rows.to(at::kBFloat16)));
    EXPECT_FALSE(model.experts[1].gate_up_efd.defined());
  }
}

TEST_F(CheckpointTest, ASaveReplacesAnEarlierOneOfOtherShards) {
  const Model model = Loaded(folder_ / "olmoe" / "per_expert");
  const fs::path out = folder_ / "replaced";
  const auto save = [&](uint64_t shard_bytes) {
    return SaveCheckpoint(out, model.config, model.backbone, model.experts, {}, shard_bytes);
  };
  ASSERT_TRUE(save(1 << 30).ok());
  ASSERT_TRUE(save(40000).ok());
  EXPECT_FALSE(fs::exists(out / "model.safetensors"));
  ExpectEqual(Loaded(out).All(), model.All(), "shards");
  ASSERT_TRUE(save(1 << 30).ok());
  EXPECT_FALSE(fs::exists(out / "model.safetensors.index.json"));
  ExpectEqual(Loaded(out).All(), model.All(), "whole");
  ModelConfig made = model.config;
  made.raw_json = "";
  EXPECT_FALSE(SaveCheckpoint(out, made, model.backbone, model.experts).ok());
}

TEST_F(CheckpointTest, SaysWhichTensorIsMissingOrHasAnotherShape) {
  const fs::path good = folder_ / "olmoe" / "per_expert";
  const Model model = Loaded(good);
  const fs::path out = folder_ / "partial";
  ExpertParameters fewer = model.experts;
  fewer[1].expert_ids.pop_back();
  ASSERT_TRUE(SaveCheckpoint(out, model.config, model.backbone, fewer).ok());
  Model target = EmptyModel(model.config, AllExperts(model.config));

  const absl::Status missing = LoadCheckpoint(out, target.config, target.backbone, target.experts);
  EXPECT_EQ(missing.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(missing.message()), HasSubstr("model.layers.1.mlp.experts.7.gate_proj"));

  ModelConfig wider = model.config;
  wider.vocab_size += 1;
  Model wide = EmptyModel(wider, AllExperts(wider));
  const absl::Status shape = LoadCheckpoint(good, wider, wide.backbone, wide.experts);
  EXPECT_THAT(std::string(shape.message()), HasSubstr("model.embed_tokens.weight has shape"));

  EXPECT_EQ(LoadCheckpoint(folder_, target.config, target.backbone, target.experts).code(),
            absl::StatusCode::kNotFound);
}

TEST_F(CheckpointTest, AnIndexCannotPointElsewhere) {
  const fs::path out = folder_ / "index";
  fs::create_directories(out);
  Model target = Loaded(folder_ / "olmoe" / "per_expert");
  for (const char* index :
       {R"({"weight_map": {"lm_head.weight": "../olmoe/per_expert/model.safetensors"}})",
        R"({"weight_map": {"lm_head.weight": "/etc/passwd"}})", R"({"weight_map": {"a": ".."}})",
        R"({"weight_map": {"a": 3}})", R"({"weight_map": []})", "[]", "{", ""}) {
    std::ofstream(out / "model.safetensors.index.json") << index;
    EXPECT_EQ(LoadCheckpoint(out, target.config, target.backbone, target.experts).code(),
              absl::StatusCode::kInvalidArgument)
        << index;
  }
}

}  // namespace
}  // namespace pcmoe::model
