// pcmoe/text/tokenizer_oracle_test.cc: ids and texts equal Hugging Face's on every one of many
// lines.
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "pcmoe/base/file.h"
#include "pcmoe/text/tokenizer.h"

namespace pcmoe::text {
namespace {

namespace fs = std::filesystem;

constexpr int kLines = 20'000;

// What tokenizer_oracle.py writes for a line.
struct Record {
  std::string line;
  std::vector<int32_t> plain;
  std::vector<int32_t> with_special;
  std::string decoded;
};

class RecordReader {
 public:
  explicit RecordReader(std::string bytes) : bytes_(std::move(bytes)) {}
  bool done() const { return at_ >= bytes_.size(); }
  Record Next() { return {Text(), Ids(), Ids(), Text()}; }

 private:
  uint32_t Count() {
    uint32_t count = 0;
    std::memcpy(&count, bytes_.data() + at_, sizeof(count));
    at_ += sizeof(count);
    return count;
  }
  std::string Text() {
    const uint32_t count = Count();
    at_ += count;
    return bytes_.substr(at_ - count, count);
  }
  std::vector<int32_t> Ids() {
    std::vector<int32_t> ids(Count());
    if (ids.empty()) return ids;  // memcpy takes no null pointer, even for nothing
    std::memcpy(ids.data(), bytes_.data() + at_, ids.size() * sizeof(int32_t));
    at_ += ids.size() * sizeof(int32_t);
    return ids;
  }
  std::string bytes_;
  size_t at_ = 0;
};

class OracleTest : public testing::TestWithParam<const char*> {
 protected:
  static void SetUpTestSuite() {
    folder_ = fs::temp_directory_path() / absl::StrCat("pcmoe_text_", ::getpid());
    fs::create_directories(folder_);
    const std::string command =
        absl::StrCat(PCMOE_PYTHON, " ", PCMOE_SOURCE_DIR, "/pcmoe/text/tokenizer_oracle.py ",
                     folder_.string(), " ", kLines);
    ASSERT_EQ(std::system(command.c_str()), 0) << command;
  }
  static void TearDownTestSuite() { fs::remove_all(folder_); }

  static inline fs::path folder_;
};

// The promise of the whole folder: same ids, with and without special tokens, and the same text
// back.
TEST_P(OracleTest, EveryLineHasTheSameIdsAndText) {
  auto tokenizer = Tokenizer::Load(folder_ / absl::StrCat(GetParam(), ".json"));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  auto bytes = base::ReadFile(folder_ / absl::StrCat(GetParam(), ".bin"));
  ASSERT_TRUE(bytes.ok()) << bytes.status();

  RecordReader reader(*std::move(bytes));
  int lines = 0;
  for (; !reader.done(); ++lines) {
    const Record record = reader.Next();
    const auto plain = tokenizer->Encode(record.line, false);
    const auto with_special = tokenizer->Encode(record.line, true);
    ASSERT_TRUE(plain.ok() && with_special.ok()) << plain.status();
    ASSERT_EQ(*plain, record.plain) << "line " << lines << ": " << record.line.substr(0, 300);
    ASSERT_EQ(*with_special, record.with_special) << "line " << lines;
    const auto decoded = tokenizer->Decode(*plain);
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    ASSERT_EQ(*decoded, record.decoded) << "line " << lines;
  }
  EXPECT_EQ(lines, kLines);
}

INSTANTIATE_TEST_SUITE_P(Kinds, OracleTest,
                         testing::Values("gpt2", "llama3", "qwen2", "mixtral", "mixtral_added",
                                         "metaspace", "unknown", "crossing", "o200k", "digits",
                                         "suffix"),
                         [](const auto& kind) { return std::string(kind.param); });

}  // namespace
}  // namespace pcmoe::text
