// pcmoe/base/base_test.cc: errors, files, digests and random streams keep their promises.
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <set>

#include "gtest/gtest.h"
#include "pcmoe/base/digest.h"
#include "pcmoe/base/edit_distance.h"
#include "pcmoe/base/file.h"
#include "pcmoe/base/random.h"
#include "pcmoe/base/status.h"

namespace pcmoe::base {
namespace {

namespace fs = std::filesystem;

class FileTest : public testing::Test {
 protected:
  FileTest() : folder_(fs::temp_directory_path() / absl::StrCat("pcmoe_base_", ::getpid())) {
    fs::create_directories(folder_);
  }
  ~FileTest() override { fs::remove_all(folder_); }
  const fs::path folder_;
};

TEST(StatusTest, EveryCodeHasTheDocumentedExitCode) {
  EXPECT_EQ(ExitCodeOf(absl::OkStatus()), ExitCode::kOk);
  EXPECT_EQ(ExitCodeOf(absl::DataLossError("")), ExitCode::kRunFailed);
  EXPECT_EQ(ExitCodeOf(absl::UnavailableError("")), ExitCode::kConnection);
  EXPECT_EQ(ExitCodeOf(absl::DeadlineExceededError("")), ExitCode::kTimeout);
  EXPECT_EQ(ExitCodeOf(absl::InvalidArgumentError("")), ExitCode::kBadInput);
  EXPECT_EQ(ExitCodeOf(absl::InternalError("")), ExitCode::kBug);
}

TEST(StatusTest, ContextKeepsCodeAndPayload) {
  absl::Status status = absl::UnavailableError("gone");
  status.SetPayload("k", absl::Cord("v"));
  const absl::Status longer = WithContext(status, "party b");
  EXPECT_EQ(longer.code(), status.code());
  EXPECT_EQ(longer.message(), "party b: gone");
  EXPECT_EQ(*longer.GetPayload("k"), "v");
}

TEST_F(FileTest, AtomicWriteReplacesAndSetsTheMode) {
  const fs::path path = folder_ / "key";
  ASSERT_TRUE(WriteFileAtomically(path, "one").ok());
  ASSERT_TRUE(WriteFileAtomically(path, "two", 0600).ok());
  EXPECT_EQ(*ReadFile(path), "two");
  struct stat info{};
  ASSERT_EQ(::stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600U);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()), 1);
}

TEST_F(FileTest, ReadSaysWhichFileAndWhy) {
  const auto missing = ReadFile(folder_ / "none");
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_NE(missing.status().message().find("none"), std::string::npos);
  ASSERT_TRUE(WriteFileAtomically(folder_ / "big", "12345").ok());
  EXPECT_EQ(ReadFile(folder_ / "big", 4).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(ReadFile(folder_).ok());
}

TEST_F(FileTest, PublishedFolderIsWholeAndIsNotOverwritten) {
  ASSERT_TRUE(CreateFolder(folder_ / "tmp").ok());
  ASSERT_TRUE(WriteFileAtomically(folder_ / "tmp" / "a", "a").ok());
  ASSERT_TRUE(PublishFolder(folder_ / "tmp", folder_ / "final").ok());
  EXPECT_EQ(*ReadFile(folder_ / "final" / "a"), "a");
  EXPECT_FALSE(fs::exists(folder_ / "tmp"));
  ASSERT_TRUE(CreateFolder(folder_ / "tmp").ok());
  EXPECT_FALSE(PublishFolder(folder_ / "tmp", folder_ / "final").ok());
}

TEST(DigestTest, Sha256EqualsThePublishedVectorAndRoundTrips) {
  const Sha256 digest = DigestOf("abc");
  EXPECT_EQ(ToHex(digest), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(*Sha256FromHex(ToHex(digest)), digest);
  EXPECT_FALSE(Sha256FromHex("ba78").ok());
  EXPECT_FALSE(Sha256FromHex(std::string(64, 'g')).ok());
}

TEST(EditDistanceTest, CountsInsertedRemovedAndReplacedBytes) {
  EXPECT_EQ(EditDistance("", ""), 0U);
  EXPECT_EQ(EditDistance("", "abc"), 3U);
  EXPECT_EQ(EditDistance("abc", ""), 3U);
  EXPECT_EQ(EditDistance("kitten", "sitting"), 3U);
  EXPECT_EQ(EditDistance("max_step", "max_steps"), 1U);
  EXPECT_EQ(EditDistance("alow", "allow"), EditDistance("allow", "alow"));
}

TEST(RandomTest, NamedSeedsRepeatAndDiffer) {
  EXPECT_EQ(SeedOf(1, "a"), SeedOf(1, "a"));
  EXPECT_NE(SeedOf(1, "a"), SeedOf(1, "b"));
  EXPECT_NE(SeedOf(1, "a"), SeedOf(2, "a"));
}

TEST(RandomTest, KeyedStreamRepeatsPerKeyAndNonce) {
  KeyedStream::Key key{};
  KeyedStream first(key, "n");
  KeyedStream again(key, "n");
  KeyedStream other(key, "m");
  std::set<uint64_t> seen;
  bool differs = false;
  for (int i = 0; i < 1000; ++i) {
    const uint64_t value = first();
    EXPECT_EQ(value, again());
    differs |= value != other();
    seen.insert(value);
  }
  EXPECT_TRUE(differs);
  EXPECT_EQ(seen.size(), 1000U);
}

// False-alarm rate below 1e-9: chi-square of 10 cells over 100,000 draws against 80.
TEST(RandomTest, BelowIsUniform) {
  KeyedStream stream(KeyedStream::Key{7}, "uniform");
  std::array<int, 10> counts{};
  for (int i = 0; i < 100000; ++i) ++counts[stream.Below(10)];
  double chi_square = 0;
  for (const int count : counts) chi_square += (count - 1e4) * (count - 1e4) / 1e4;
  EXPECT_LT(chi_square, 80);
}

}  // namespace
}  // namespace pcmoe::base
