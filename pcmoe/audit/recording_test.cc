// pcmoe/audit/recording_test.cc: recordings and truths that are cut or hostile end in one sentence.
#include "pcmoe/audit/recording.h"

#include <gtest/gtest.h>

#include <fstream>

#include "pcmoe/audit/truth.h"
#include "pcmoe/audit/view.h"

namespace pcmoe::audit {
namespace {

namespace fs = std::filesystem;

fs::path Folder() {
  const fs::path folder = fs::path(testing::TempDir()) / "audit_recording_test";
  fs::create_directories(folder);
  return folder;
}

fs::path Write(const std::string& bytes) {
  const fs::path path = Folder() / "messages.bin";
  std::ofstream(path, std::ios::binary) << bytes;
  return path;
}

std::string RecordOf(wire::MessageKind kind, const std::string& payload, uint16_t layer = 0) {
  const auto head = wire::EncodeRecordHeader({.header = {.kind = kind, .step = 3, .layer = layer},
                                              .from = 1,
                                              .payload_bytes = payload.size()});
  return std::string(head.begin(), head.end()) + payload;
}

TEST(RecordingTest, ReadsRecordsAndLeavesOutTheOneThatIsCutOff) {
  const std::string whole =
      RecordOf(wire::MessageKind::kVote, "12345678") + RecordOf(wire::MessageKind::kBegin, "abc");
  for (size_t length = 0; length <= whole.size(); ++length) {
    const auto recording = Recording::Open(Write(whole.substr(0, length)));
    ASSERT_TRUE(recording.ok()) << length;
    EXPECT_EQ(recording->messages().size(), length == whole.size() ? 2U : length >= 48 ? 1U : 0U);
    EXPECT_EQ(recording->cut_bytes() > 0, length != 0 && length != 48 && length != whole.size());
  }
}

TEST(RecordingTest, SaysWhereItIsNoRecording) {
  const std::string bytes = RecordOf(wire::MessageKind::kVote, "12345678") + std::string(80, 'x');
  const auto recording = Recording::Open(Write(bytes));
  ASSERT_TRUE(absl::IsDataLoss(recording.status()));
  EXPECT_NE(recording.status().message().find("byte 48 is not a recorded message"),
            std::string::npos);
}

TEST(RecordingTest, PayloadsThatAreNotRowsAreRefusedByName) {
  model::ModelConfig config;
  config.hidden_size = 8;
  config.num_layers = 2;
  config.num_experts = 4;
  config.experts_per_token = 2;
  for (const std::string& payload :
       {std::string(), std::string(3, '\1'), std::string(64, '\xff'), std::string(4096, '\0')}) {
    const auto recording =
        Recording::Open(Write(RecordOf(wire::MessageKind::kExpertRows, payload)));
    ASSERT_TRUE(recording.ok());
    const Member member{.party = 0, .recording = &*recording};
    const auto view = MakeView({&member, 1}, config, {3});
    if (view.ok()) {  // no rows at all is a message, too
      EXPECT_TRUE(view->layers[0].sources.empty());
      continue;
    }
    EXPECT_NE(view.status().message().find("expert_rows of party 1, step 3, layer 0"),
              std::string::npos);
  }
  const auto recording =
      Recording::Open(Write(RecordOf(wire::MessageKind::kExpertRows, std::string(64, '\0'), 7)));
  const Member member{.party = 0, .recording = &*recording};
  EXPECT_FALSE(MakeView({&member, 1}, config, {3}).ok());
}

TEST(TruthTest, RoundTripsAndRefusesWhatIsNone) {
  const fs::path folder = Folder() / "truth";
  fs::remove_all(folder);
  auto writer = TruthWriter::Create(folder);
  ASSERT_TRUE(writer.ok());
  writer->AddBatch({.step = 5,
                    .micro_batch = 1,
                    .sequences = 2,
                    .tokens = {1, 2, 3, 4},
                    .labels = {1, -100, 3, 4}});
  const std::vector<int64_t> rows = {3, 0, 2};
  writer->AddRows(5, 1, 1, 2, rows);
  ASSERT_TRUE(writer->Finish().ok());
  const auto truth = Truth::Load(folder / kTruthFile);
  ASSERT_TRUE(truth.ok());
  ASSERT_EQ(truth->batches().size(), 1U);
  const TrueBatch& batch = truth->batches().begin()->second;
  EXPECT_EQ(batch.length(), 2);
  EXPECT_EQ(batch.labels, (std::vector<int32_t>{1, -100, 3, 4}));
  const auto read = truth->RowsOf(5, 1, 1, 2);
  EXPECT_EQ(std::vector<int32_t>(read.begin(), read.end()), (std::vector<int32_t>{3, 0, 2}));
  EXPECT_TRUE(truth->RowsOf(5, 1, 1, 3).empty());
  std::ofstream(folder / kTruthFile, std::ios::binary | std::ios::app) << std::string(30, 'z');
  EXPECT_TRUE(absl::IsDataLoss(Truth::Load(folder / kTruthFile).status()));
  fs::remove_all(folder);
}

}  // namespace
}  // namespace pcmoe::audit
