// pcmoe/border/ledger_test.cc: what was recorded stays, and every change to it is noticed.
#include "pcmoe/border/ledger.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "pcmoe/base/file.h"

namespace pcmoe::border {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class LedgerTest : public testing::Test {
 protected:
  LedgerTest() : path_(fs::temp_directory_path() / absl::StrCat("pcmoe_ledger_", ::getpid())) {
    fs::remove(path_);
  }
  ~LedgerTest() override { fs::remove(path_); }

  // Appends records `first`..`last` (1-based), each with other values.
  void Write(int first, int last) {
    auto ledger = Ledger::Open(path_, {"a", "b", "c"});
    ASSERT_TRUE(ledger.ok()) << ledger.status();
    ASSERT_EQ((*ledger)->records(), static_cast<uint64_t>(first - 1));
    for (int i = first; i <= last; ++i) {
      const wire::MessageHeader header{
          i % 2 == 0 ? wire::MessageKind::kExpertRows : wire::MessageKind::kVote,
          static_cast<uint64_t>(i / 3), 1, static_cast<uint16_t>(i % 5), 2};
      ASSERT_TRUE((*ledger)->Append(1 + i % 2, header, static_cast<uint64_t>(100 + i)).ok());
    }
    ASSERT_TRUE((*ledger)->Sync().ok());
  }

  std::string Text() const { return *base::ReadFile(path_); }
  void SetText(const std::string& text) {
    ASSERT_TRUE(base::WriteFileAtomically(path_, text).ok());
  }

  const fs::path path_;
};

TEST_F(LedgerTest, SumsWhatWasRecordedOverReopening) {
  Write(1, 4);
  Write(5, 10);

  const auto summary = VerifyLedger(path_);
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(summary->records, 10U);
  EXPECT_EQ(summary->first_step, 0U);
  EXPECT_EQ(summary->last_step, 3U);
  const std::map<std::pair<std::string, std::string>, LedgerSummary::Sum> expected = {
      {{"b", "expert_rows"}, {530, 5}}, {{"c", "vote"}, {525, 5}}};
  EXPECT_EQ(summary->sums, expected);
  struct stat info{};
  ASSERT_EQ(::stat(path_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600U);
}

TEST_F(LedgerTest, TheFormatIsTheDocumentedOne) {
  Write(1, 1);
  EXPECT_THAT(Text(), testing::StartsWith(
                          "{\"seq\":1,\"step\":0,\"attempt\":1,\"layer\":1,\"micro_batch\":2,"
                          "\"to\":\"c\",\"kind\":\"vote\",\"bytes\":101,\"hash\":\""));
}

TEST_F(LedgerTest, ChangingAnyByteIsNoticed) {
  Write(1, 3);
  const std::string text = Text();
  for (size_t i = 0; i + 1 < text.size(); ++i) {
    std::string changed = text;
    changed[i] = changed[i] == '1' ? '2' : '1';
    SetText(changed);
    EXPECT_FALSE(VerifyLedger(path_).ok()) << "byte " << i << ": " << text[i];
  }
}

TEST_F(LedgerTest, RemovingSwappingOrRepeatingRecordsIsNoticed) {
  Write(1, 4);
  std::vector<std::string> lines;
  const std::string text = Text();
  for (size_t start = 0; start < text.size();) {
    const size_t end = text.find('\n', start) + 1;
    lines.push_back(text.substr(start, end - start));
    start = end;
  }
  SetText(lines[0] + lines[2] + lines[3]);
  EXPECT_THAT(std::string(VerifyLedger(path_).status().message()), HasSubstr("record 2 "));
  EXPECT_EQ(Ledger::Open(path_, {}).status().code(), absl::StatusCode::kDataLoss);
  SetText(lines[1] + lines[2] + lines[3]);
  EXPECT_FALSE(VerifyLedger(path_).ok());
  SetText(lines[0] + lines[1] + lines[3] + lines[2]);
  EXPECT_THAT(std::string(VerifyLedger(path_).status().message()), HasSubstr("record 3 "));
  SetText(text + lines[3]);
  EXPECT_FALSE(VerifyLedger(path_).ok());
  SetText(lines[0] + "\n" + lines[1]);
  EXPECT_FALSE(VerifyLedger(path_).ok());
}

TEST_F(LedgerTest, HalfARecordIsCutOffAtAnyLength) {
  Write(1, 2);
  const std::string text = Text();
  const size_t first = text.find('\n') + 1;
  for (size_t length = first; length < text.size(); ++length) {
    SetText(text.substr(0, length));
    EXPECT_EQ(VerifyLedger(path_)->half_record_bytes, length - first);
    {
      auto ledger = Ledger::Open(path_, {"a", "b"});
      ASSERT_TRUE(ledger.ok()) << ledger.status();
      EXPECT_EQ((*ledger)->repaired_bytes(), length - first);
      ASSERT_TRUE((*ledger)->Append(1, {wire::MessageKind::kVote, 7}, 9).ok());
    }
    EXPECT_EQ(VerifyLedger(path_)->records, 2U);
  }
}

TEST_F(LedgerTest, ALongLedgerContinuesFromItsTail) {
  Write(1, 5000);
  ASSERT_GT(fs::file_size(path_), size_t{512} << 10);
  Write(5001, 5003);
  EXPECT_EQ(VerifyLedger(path_)->records, 5003U);

  std::string text = Text();
  text[text.size() - 300] = '\x01';
  SetText(text);
  EXPECT_EQ(Ledger::Open(path_, {}).status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(LedgerTest, OnlyOneProcessWritesAtATime) {
  const auto first = Ledger::Open(path_, {});
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(Ledger::Open(path_, {}).status().code(), absl::StatusCode::kFailedPrecondition);
}

// kill -9 while writing: everything whose Append returned is there, and the chain goes on.
TEST_F(LedgerTest, SurvivesKillNine) {
  int pipe_ends[2];
  ASSERT_EQ(::pipe(pipe_ends), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    auto ledger = Ledger::Open(path_, {"a", "b"});
    for (uint64_t i = 1;; ++i) {
      if (!(*ledger)->Append(1, {wire::MessageKind::kVote, i}, 1).ok()) ::_exit(1);
      if (::write(pipe_ends[1], &i, sizeof(i)) != sizeof(i)) ::_exit(1);
    }
  }
  uint64_t confirmed = 0;
  while (confirmed < 500) ASSERT_EQ(::read(pipe_ends[0], &confirmed, sizeof(confirmed)), 8);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  ::close(pipe_ends[1]);
  while (::read(pipe_ends[0], &confirmed, sizeof(confirmed)) == 8) {
  }
  ::close(pipe_ends[0]);
  ASSERT_TRUE(Ledger::Open(path_, {"a", "b"}).ok());
  EXPECT_GE(VerifyLedger(path_)->records, confirmed);
}

// The device is full: the message is refused, and so is everything after it.
TEST_F(LedgerTest, SaysSoWhenTheDiskIsFull) {
  auto ledger = Ledger::Open("/dev/full", {"a", "b"});
  ASSERT_TRUE(ledger.ok()) << ledger.status();
  for (int i = 0; i < 2; ++i) {
    const auto status = (*ledger)->Append(1, {}, 1);
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(std::string(status.message()), HasSubstr("nothing may leave"));
  }
}

}  // namespace
}  // namespace pcmoe::border
