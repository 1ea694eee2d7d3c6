// pcmoe/train/event_file_test.cc: an independent reader finds in the event file what was logged.
#include "pcmoe/train/event_file.h"

#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "absl/strings/match.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "pcmoe/base/file.h"
#include "pcmoe/train/run_report.h"

namespace pcmoe::train {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class EventFileTest : public testing::Test {
 protected:
  EventFileTest() : folder_(fs::temp_directory_path() / absl::StrCat("pcmoe-events-", getpid())) {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  ~EventFileTest() override { fs::remove_all(folder_); }

  fs::path OnlyFile(const fs::path& folder) const {
    fs::path found;
    for (const auto& entry : fs::directory_iterator(folder)) found = entry.path();
    return found;
  }
  // What event_file_oracle.py prints, or "refused".
  std::string Read(const fs::path& file) const {
    const fs::path out = folder_ / "read";
    const std::string command =
        absl::StrCat(PCMOE_PYTHON, " ", PCMOE_SOURCE_DIR, "/pcmoe/train/event_file_oracle.py ",
                     file.string(), " > ", out.string(), " 2> /dev/null");
    if (std::system(command.c_str()) != 0) return "refused";
    return base::ReadFile(out).value_or("nothing");
  }

  const fs::path folder_;
};

TEST(Crc32cTest, IsThatOfTheStandard) {
  EXPECT_EQ(Crc32c("123456789"), 0xE3069283U);            // the check value of CRC-32C
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8A9136AAU);  // RFC 3720, B.4
  EXPECT_EQ(Crc32c(std::string(32, '\xff')), 0x62A8AB43U);
}

TEST(TagTest, IsTransformers) {
  EXPECT_EQ(TagOf("loss"), "train/loss");
  EXPECT_EQ(TagOf("learning_rate"), "train/learning_rate");
  EXPECT_EQ(TagOf("eval_loss"), "eval/loss");
}

TEST_F(EventFileTest, OracleReadsWhatWasWritten) {
  {
    auto file = EventFile::Create(folder_ / "runs");
    ASSERT_TRUE(file.ok()) << file.status();
    file->GoOnFrom(0);
    file->Scalars(1, {{"train/loss", 2.5}, {"train/grad_norm", -0.125}});
    file->Scalars(int64_t{1} << 40, {{"eval/loss", 0}});
    file->GoOnFrom(300);
  }
  const fs::path file = OnlyFile(folder_ / "runs");
  EXPECT_TRUE(absl::StartsWith(file.filename().string(), "events.out.tfevents."));
  EXPECT_EQ(Read(file),
            "version brain.Event:2\nstart 1\n1 train/grad_norm -0.125\n1 train/loss 2.5\n"
            "1099511627776 eval/loss 0\nstart 301\n");
  // And the reader would notice a byte that is not as it was written.
  std::fstream bytes(file, std::ios::in | std::ios::out | std::ios::binary);
  bytes.seekp(-8, std::ios::end);
  bytes.put('\x55');
  bytes.close();
  EXPECT_EQ(Read(file), "refused");
}

TEST_F(EventFileTest, SpeedCountsAllTokensOfABatchNotOnlyThoseWithLoss) {
  auto report = RunReport::Create(folder_ / "out", 4, 1, /*print=*/false);
  ASSERT_TRUE(report.ok()) << report.status();
  for (int64_t step = 1; step <= 4; ++step) {
    // The first step's time does not count.
    report->Step({.step = step, .tokens = 8, .input_tokens = 64, .step_s = step == 1 ? 100 : 0.5});
  }
  ASSERT_TRUE(report->Finish(4, 0, 0, 0, std::nullopt).ok());
  const std::string result = base::ReadFile(folder_ / "out" / "result.json").value_or("");
  EXPECT_THAT(result, HasSubstr("\"tokens_per_s\": 128.0"));
}

TEST_F(EventFileTest, RunReportLogsWhatTransformersWould) {
  {
    auto report = RunReport::Create(folder_ / "out", 4, 2, /*print=*/false);
    ASSERT_TRUE(report.ok()) << report.status();
    report->Start(0, 1);
    for (int64_t step = 1; step <= 4; ++step) {
      report->Step({.step = step,
                    .epoch = 0.5,
                    .loss = 5.0 - static_cast<double>(step),
                    .grad_norm = 1,
                    .learning_rate = 0.25,
                    .load_le = {{3, 1}, {}}});
    }
    report->MeanEvaluation(4, {.loss_sum = 96, .loss_tokens = 64});
  }
  EXPECT_EQ(Read(OnlyFile(folder_ / "out" / "runs")),
            "version brain.Event:2\nstart 1\n"
            "2 train/epoch 0.5\n2 train/grad_norm 1\n2 train/learning_rate 0.25\n2 train/loss 3\n"
            "4 train/epoch 0.5\n4 train/grad_norm 1\n4 train/learning_rate 0.25\n4 train/loss 1\n"
            "4 eval/loss 1.5\n4 eval/tokens 64\n");
  const std::string metrics = base::ReadFile(folder_ / "out" / "metrics.jsonl").value_or("");
  EXPECT_THAT(metrics, HasSubstr(R"("expert_load":[[3,1],[]])"));
}

}  // namespace
}  // namespace pcmoe::train
