// pcmoe/data/dataset_test.cc: rows with labels and completions: which tokens count, and what was
// lost.
#include "pcmoe/data/dataset.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "pcmoe/data/batch_source.h"

namespace pcmoe::data {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr int32_t kNone = kIgnoredLabel;

// One token a letter: a=0 .. g=6; newline 7; the end is 8.
text::Tokenizer Letters() {
  return *text::Tokenizer::FromJson(
      R"({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
          "decoder": {"type": "ByteLevel"}, "model": {"type": "BPE", "vocab":
          {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4, "f": 5, "g": 6, "Ċ": 7}, "merges": []}})",
      "letters");
}

class DatasetTest : public testing::Test {
 protected:
  DatasetTest() : path_(fs::temp_directory_path() / absl::StrCat("pcmoe_set_", ::getpid())) {}
  ~DatasetTest() override { fs::remove(path_); }
  absl::StatusOr<Dataset> Load(const std::string& text, const DatasetOptions& options) const {
    std::ofstream(path_) << text;
    return LoadDataset(path_, tokenizer_, options);
  }
  static DatasetOptions Grouped() {
    return {.pack = {.sequence_length = 6, .eos_id = 8}, .batching = Batching::kGroupByLength};
  }
  const fs::path path_;
  const text::Tokenizer tokenizer_ = Letters();
};

TEST_F(DatasetTest, OnlyTheCompletionCountsUnlessAllIsAskedFor) {
  const std::string rows =
      "{\"text\": \"ab\", \"label\": \"c\"}\n{\"prompt\": \"de\", \"completion\": \"f\"}\n"
      "{\"text\": \"ga\"}\n";
  const auto only = Load(rows, Grouped());
  ASSERT_TRUE(only.ok()) << only.status();
  ASSERT_EQ(only->sequences.size(), 3U);
  EXPECT_THAT(only->sequences[0].tokens, ElementsAre(0, 1, 7, 2, 8));
  EXPECT_THAT(only->sequences[0].labels, ElementsAre(kNone, kNone, kNone, 2, 8));
  EXPECT_THAT(only->sequences[1].tokens, ElementsAre(3, 4, 5, 8));
  EXPECT_THAT(only->sequences[1].labels, ElementsAre(kNone, kNone, 5, 8));
  EXPECT_THAT(only->sequences[2].labels, ElementsAre(6, 0, 8));
  EXPECT_EQ(only->counts.rows, 3);
  EXPECT_EQ(only->counts.supervised, 2);
  EXPECT_EQ(only->counts.loss_tokens, 2 + 2 + 2);  // the first token of a plain text has no place

  DatasetOptions all = Grouped();
  all.loss_on_prompt = true;
  EXPECT_THAT(Load(rows, all)->sequences[0].labels, ElementsAre(0, 1, 7, 2, 8));
}

TEST_F(DatasetTest, ALongRowLosesTheBeginningOfItsPromptAndIsCounted) {
  const auto set = Load(
      "{\"text\": \"abcdefg\", \"label\": \"a\"}\n{\"text\": \"abcdefg\"}\n{\"text\": \"\"}\n"
      "{\"text\": \"abcdefg\"}\n",
      Grouped());
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_THAT(set->sequences[0].tokens, ElementsAre(4, 5, 6, 7, 0, 8));
  EXPECT_THAT(set->sequences[0].labels, ElementsAre(kNone, kNone, kNone, kNone, 0, 8));
  EXPECT_THAT(set->sequences[1].tokens, ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_EQ(set->sequences.size(), 3U);
  EXPECT_EQ(set->counts.cut, 3);
  EXPECT_EQ(set->counts.longest, 10);
  EXPECT_EQ(set->counts.duplicates, 1);
  EXPECT_EQ(set->counts.without_loss, 1);
  EXPECT_EQ(set->counts.Losses(6), "3 rows cut at 6 tokens, 1 row without a loss token");
}

TEST_F(DatasetTest, PackedRowsWithLabelsAreNeverSplitAndPlainOnesFlow) {
  DatasetOptions packed = Grouped();
  packed.batching = Batching::kPacked;
  const auto set = Load(
      "{\"text\": \"a\", \"label\": \"b\"}\n{\"text\": \"c\", \"label\": \"d\"}\n{\"text\": "
      "\"eeeee\"}\n",
      packed);
  ASSERT_TRUE(set.ok()) << set.status();
  ASSERT_EQ(set->sequences.size(), 3U);
  EXPECT_THAT(set->sequences[0].tokens, ElementsAre(0, 7, 1, 8, 0, 0));
  EXPECT_THAT(set->sequences[0].labels, ElementsAre(kNone, kNone, 1, 8, kNone, kNone));
  EXPECT_THAT(set->sequences[0].document_starts, ElementsAre(0, 4));
  EXPECT_THAT(set->sequences[1].tokens, ElementsAre(2, 7, 3, 8, 4, 4));
  EXPECT_THAT(set->sequences[2].tokens, ElementsAre(4, 4, 4, 8, 0, 0));
}

TEST_F(DatasetTest, LabelsMayBeNumbersAndNothingElse) {
  DatasetOptions options = Grouped();
  options.jsonl.label_separator = "";
  EXPECT_EQ(Load("{\"text\": \"a\", \"label\": 1}\n", options)->counts.supervised, 1);
  for (const char* bad : {"{\"text\": \"a\", \"label\": 1.5}", "{\"text\": \"a\", \"label\": null}",
                          "{\"text\": \"a\", \"label\": \"\"}", "{\"text\": \"a\", \"label\": []}",
                          "{\"prompt\": 1, \"completion\": \"a\"}", "{\"prompt\": \"a\"}"}) {
    const auto set = Load(bad, options);
    EXPECT_EQ(set.status().code(), absl::StatusCode::kInvalidArgument) << bad;
    EXPECT_THAT(std::string(set.status().message()), HasSubstr(":1: ")) << bad;
  }
  options.jsonl.label_column = "";
  EXPECT_EQ(Load("{\"text\": \"a\", \"label\": 1.5}", options)->counts.supervised, 0);
}

TEST(GroupedSourceTest, BatchesHaveRowsOfOneLengthAndAnEpochHasEveryRowOnce) {
  std::vector<Sequence> sequences(300);
  for (int i = 0; i < 300; ++i) {
    sequences[i].tokens.assign(static_cast<size_t>(i * 37 % 60 + 1), i);
  }
  BatchSource source(sequences, 5, 10);
  std::set<int32_t> seen;
  int64_t padding = 0, first_batch_of_epoch = 0;
  for (int batch = 0; batch < 30; ++batch) {
    size_t shortest = 1000, longest = 0;
    for (const Sequence* sequence : source.Next(10)) {
      seen.insert(sequence->tokens[0]);
      shortest = std::min(shortest, sequence->tokens.size());
      longest = std::max(longest, sequence->tokens.size());
    }
    padding += static_cast<int64_t>(longest - shortest);
    if (batch == 0) first_batch_of_epoch = static_cast<int64_t>(longest);
  }
  EXPECT_EQ(seen.size(), 300U);
  EXPECT_LE(padding, 30 * 4);  // at random it is about 50 a batch
  std::set<int64_t> firsts = {first_batch_of_epoch};
  for (int epoch = 0; epoch < 4; ++epoch) {
    firsts.insert(static_cast<int64_t>(source.Next(10)[0]->tokens.size()));
    source.Next(290);
  }
  EXPECT_GT(firsts.size(), 2U);  // not from short to long every time
  BatchSource again(sequences, 5, 10);
  again.Next(730);
  BatchSource resumed(sequences, 5, 10);
  ASSERT_TRUE(resumed.Seek(again.cursor()).ok());
  const auto rest = again.Next(20), resumed_rest = resumed.Next(20);
  for (size_t i = 0; i < rest.size(); ++i) EXPECT_EQ(rest[i]->tokens, resumed_rest[i]->tokens);
}

}  // namespace
}  // namespace pcmoe::data
