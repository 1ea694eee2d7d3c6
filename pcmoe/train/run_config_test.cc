// pcmoe/train/run_config_test.cc: a config that was written is the one that is read again.
#include "pcmoe/train/run_config.h"

#include <unistd.h>

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "pcmoe/base/file.h"

namespace pcmoe::train {
namespace {

namespace fs = std::filesystem;

const std::vector<std::string> kTables = {"model",      "data",   "training",
                                          "federation", "border", "run"};

RunConfig WrittenAndRead(const RunConfig& config) {
  const fs::path path = fs::temp_directory_path() / absl::StrCat("pcmoe-config-", getpid());
  EXPECT_TRUE(base::WriteFileAtomically(path, ToToml(config, kTables, /*with_shared=*/true)).ok());
  const auto read = LoadRunConfig(path, {});
  fs::remove(path);
  EXPECT_TRUE(read.ok()) << read.status();
  return read.ok() ? *read : RunConfig();
}

TEST(RunConfigTest, StringsAreReadAsTheyWereWritten) {
  // The default is a line break, and an empty one is not the default.
  for (const std::string& separator :
       {RunConfig().label_separator, std::string(), std::string("\n\n"), std::string("\r\n"),
        std::string(" : "), std::string("'"), std::string("\"\"\""), std::string("'''\n\""),
        std::string("\\n"), std::string("\ttab"), std::string("\x01"),
        std::string("\u00e9\u2028")}) {
    RunConfig config;
    config.label_separator = separator;
    EXPECT_EQ(WrittenAndRead(config).label_separator, separator);
  }
}

TEST(RunConfigTest, EveryKeyIsReadAsItWasWritten) {
  RunConfig config;
  config.train = {"/with\nbreak.jsonl", "/with 'quotes' \"both\".jsonl"};
  config.eval = {"/e.jsonl"};
  config.learning_rate = 1.0 / 3;
  config.isolate_documents = true;
  config.seed = 1LL << 60;
  config.min_rows = 7;
  config.on_peer_loss = "stop";
  config.identity = "none";  // paths become absolute ones, from the file
  config.output_dir = "/out";
  const RunConfig read = WrittenAndRead(config);
  EXPECT_EQ(read.train, config.train);
  EXPECT_EQ(read.learning_rate, config.learning_rate);
  EXPECT_EQ(read.seed, config.seed);
  EXPECT_EQ(ToToml(read, kTables, true), ToToml(config, kTables, true));
}

TEST(RunConfigTest, HowRowsWithLabelsAreReadIsTheManifests) {
  RunConfig signed_by_all;
  signed_by_all.max_steps = 1;
  signed_by_all.label_separator = "\nlabel: ";
  signed_by_all.loss_on = "all";
  const auto shared = SharedTraining(signed_by_all);

  RunConfig mine;
  mine.model_name_or_path = "model";
  mine.tokenizer = "tokenizer.json";
  mine.train = {"train.jsonl"};
  const absl::Status applied = ApplySharedTraining(shared, {}, mine);
  ASSERT_TRUE(applied.ok()) << applied;
  EXPECT_EQ(mine.label_separator, "\nlabel: ");
  EXPECT_EQ(mine.loss_on, "all");

  RunConfig other;
  other.label_separator = "\n";
  const absl::Status refused = ApplySharedTraining(shared, {"label_separator"}, other);
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(refused.message(),
            "[data] label_separator is \"\\n\" here, but the signed manifest says \"\\nlabel: \"; "
            "remove the line, or provision a new manifest");
}

// {private_lr_scale, expert_lr_scale} of a config as they are resolved.
std::pair<double, double> Scales(RunConfig config, bool from_checkpoint) {
  const absl::Status status = ResolveBackbone(from_checkpoint, /*tied=*/false, 64, config);
  EXPECT_TRUE(status.ok()) << status;
  return {config.private_lr_scale, config.expert_lr_scale};
}

TEST(RunConfigTest, FromACheckpointTheExpertsLeadWhereNotAllIsAggregated) {
  RunConfig config;
  EXPECT_EQ(Scales(config, true), std::pair(1.0, 2.0));  // embedding frozen, head private
  EXPECT_EQ(Scales(config, false), std::pair(1.0, 1.0));
  config.embedding = "aggregated";
  EXPECT_EQ(Scales(config, true), std::pair(1.0, 2.0));
  config.head = "aggregated";
  EXPECT_EQ(Scales(config, true), std::pair(1.0, 1.0));  // a step of the central run
  config.embedding = config.head = "auto";
  config.backbone = "private";
  EXPECT_EQ(Scales(config, true), std::pair(0.1, 3.0));
  EXPECT_EQ(Scales(config, false), std::pair(1.0, 1.0));
  config.backbone = "frozen";
  EXPECT_EQ(Scales(config, true), std::pair(0.1, 2.0));
  EXPECT_EQ(Scales(config, false), std::pair(1.0, 1.0));
  config.backbone = "private";
  config.private_lr_scale = 0;
  config.expert_lr_scale = 1;
  EXPECT_EQ(Scales(config, true), std::pair(0.0, 1.0));
  for (const double bad : {0.0, 101.0, std::nan("")}) {
    config.expert_lr_scale = bad;
    EXPECT_FALSE(ResolveBackbone(true, false, 64, config).ok()) << bad;
  }
}

TEST(RunConfigTest, SharedKeysOfEveryTableCountAsSet) {
  const fs::path path = fs::temp_directory_path() / absl::StrCat("pcmoe-keys-", getpid());
  ASSERT_TRUE(
      base::WriteFileAtomically(path, "[data]\nloss_on = 'all'\n[training]\nseed = 1\n").ok());
  const auto keys = SharedKeysSet(path);
  fs::remove(path);
  ASSERT_TRUE(keys.ok()) << keys.status();
  EXPECT_THAT(*keys, testing::UnorderedElementsAre("loss_on", "seed"));
}

}  // namespace
}  // namespace pcmoe::train
