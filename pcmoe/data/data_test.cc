// pcmoe/data/data_test.cc: documents, sequences and their order are what they are promised to be.
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "pcmoe/data/batch_source.h"
#include "pcmoe/data/jsonl.h"
#include "pcmoe/data/packing.h"

namespace pcmoe::data {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

class FileTest : public testing::Test {
 protected:
  FileTest() : folder_(fs::temp_directory_path() / absl::StrCat("pcmoe_data_", ::getpid())) {
    fs::create_directories(folder_);
  }
  ~FileTest() override { fs::remove_all(folder_); }
  fs::path Write(const std::string& bytes) const {
    std::ofstream(folder_ / "x.jsonl", std::ios::binary) << bytes;
    return folder_ / "x.jsonl";
  }
  static absl::StatusOr<std::vector<std::string>> ReadAll(const fs::path& path,
                                                          JsonlOptions options = {}) {
    PCMOE_ASSIGN_OR_RETURN(JsonlReader reader, JsonlReader::Open(path, std::move(options)));
    std::vector<std::string> texts;
    while (true) {
      PCMOE_ASSIGN_OR_RETURN(std::optional<std::string> text, reader.Next());
      if (!text) return texts;
      texts.push_back(*std::move(text));
    }
  }
  const fs::path folder_;
};

TEST_F(FileTest, ReadsEveryLineHoweverItEnds) {
  const std::string long_text(100'000, 'x');
  const fs::path path = Write(
      "\xEF\xBB\xBF{\"text\": \"one\"}\r\n\n  \n{\"label\": 1, \"text\": \"\\u00e9\\n\"}\n"
      "{\"text\": \"" +
      long_text + "\"}\n{\"text\": \"\"}\n{\"text\": \"last\"}");

  const auto texts = ReadAll(path);

  ASSERT_TRUE(texts.ok()) << texts.status();
  EXPECT_THAT(*texts, ElementsAre("one", "\u00e9\n", long_text, "", "last"));
}

// Lines whose length is around that of the pieces they are read in.
TEST_F(FileTest, LinesOfEveryLengthAroundAPieceAreWhole) {
  for (size_t length = (1 << 14) - 16; length < (1 << 14) + 4; ++length) {
    const std::string text(length, 'y');
    for (const char* end : {"", "\n"}) {
      const auto texts =
          ReadAll(Write("{\"text\":\"" + text + "\"}\n{\"text\":\"" + text + "\"}" + end));
      ASSERT_TRUE(texts.ok()) << texts.status();
      ASSERT_THAT(*texts, ElementsAre(text, text));
    }
  }
}

TEST_F(FileTest, ErrorsNameFileAndLine) {
  const std::pair<const char*, const char*> cases[] = {
      {"{\"text\": \"a\"}\n{\"text\": \"\xFF\"}\n", "x.jsonl:2: byte 10 is not valid UTF-8"},
      {"{\"text\": \"\xED\xA0\x80\"}\n", "x.jsonl:1: byte 10 is not valid UTF-8"},
      {"\n\n{\"text\": \n", "x.jsonl:3: the line is not a JSON object"},
      {"[1]\n", "x.jsonl:1: the line is not a JSON object"},
      {"{\"txt\": \"a\"}\n", "x.jsonl:1: the object has no key 'text'"},
      {"{\"text\": 7}\n", "x.jsonl:1: the value of 'text' is not a string"},
      {"{\"text\": null}", "x.jsonl:1: the value of 'text' is not a string"},
      {"{\"text\": \"a\"}\n\xEF\xBB\xBF{\"text\": \"a\"}\n", "x.jsonl:2: a byte order mark"},
      {"\xEF\xBB\xBF\xEF\xBB\xBF{\"text\": \"a\"}\n", "x.jsonl:1: a byte order mark"},
      {"{\"text\": \"\\ud800\"}\n", "x.jsonl:1: the line is not a JSON object"},
  };
  for (const auto& [bytes, message] : cases) {
    const auto texts = ReadAll(Write(bytes));
    EXPECT_EQ(texts.status().code(), absl::StatusCode::kInvalidArgument) << bytes;
    EXPECT_THAT(std::string(texts.status().message()), HasSubstr(message));
  }
  const auto long_line = ReadAll(Write(std::string(3000, ' ')), {.max_line_bytes = 2000});
  EXPECT_THAT(std::string(long_line.status().message()),
              HasSubstr(":1: the line has more than 2000"));
  EXPECT_EQ(ReadAll(folder_ / "none").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(FileTest, AnotherColumnAndAnEmptyFile) {
  EXPECT_THAT(*ReadAll(Write("{\"body\": \"b\"}"), {.column = "body"}), ElementsAre("b"));
  EXPECT_TRUE(ReadAll(Write(""))->empty());
}

Packer MakePacker(LastSequence last, int32_t eos = 9) {
  return *Packer::Create({.sequence_length = 4, .eos_id = eos, .last = last, .pad_id = 7});
}

TEST(PackerTest, DocumentsFollowEachOtherWithEosAndKeepTheirStarts) {
  Packer packer = MakePacker(LastSequence::kPad);
  packer.Add(std::vector<int32_t>{1, 2});
  packer.Add(std::vector<int32_t>{});
  packer.Add(std::vector<int32_t>{3, 4, 5});
  const std::vector<Sequence> sequences = std::move(packer).Finish();

  ASSERT_EQ(sequences.size(), 2U);
  EXPECT_THAT(sequences[0].tokens, ElementsAre(1, 2, 9, 3));
  EXPECT_EQ(sequences[0].labels, sequences[0].tokens);
  EXPECT_THAT(sequences[0].document_starts, ElementsAre(0, 3));
  EXPECT_THAT(sequences[1].tokens, ElementsAre(4, 5, 9, 7));
  EXPECT_THAT(sequences[1].labels, ElementsAre(4, 5, 9, kIgnoredLabel));
  EXPECT_THAT(sequences[1].document_starts, ElementsAre(0, 3));
}

TEST(PackerTest, TheLastPartCanBeDroppedAndFullOnesNeedNoPadding) {
  Packer dropping = MakePacker(LastSequence::kDrop);
  dropping.Add(std::vector<int32_t>{1, 2, 3, 4, 5});
  EXPECT_EQ(std::move(dropping).Finish().size(), 1U);

  Packer exact = MakePacker(LastSequence::kPad);
  exact.Add(std::vector<int32_t>{1, 2, 3});
  EXPECT_EQ(std::move(exact).Finish().size(), 1U);

  Packer plain = MakePacker(LastSequence::kPad, -1);
  plain.Add(std::vector<int32_t>{1, 2, 3});
  plain.Add(std::vector<int32_t>{4});
  const std::vector<Sequence> sequences = std::move(plain).Finish();
  ASSERT_EQ(sequences.size(), 1U);
  EXPECT_THAT(sequences[0].document_starts, ElementsAre(0, 3));

  EXPECT_TRUE(std::move(*Packer::Create({.sequence_length = 2})).Finish().empty());
  EXPECT_FALSE(Packer::Create({.sequence_length = 1}).ok());
}

TEST_F(FileTest, LoadSequencesTokenizesAndNamesTheLineThatFails) {
  const auto tokenizer = text::Tokenizer::FromJson(
      R"({"pre_tokenizer": {"type": "ByteLevel"}, "decoder": {"type": "ByteLevel"},
          "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "Ġ": 2}, "merges": []}})",
      "t");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();

  const PackOptions options{.sequence_length = 4, .eos_id = 1};
  const auto sequences =
      LoadSequences({Write("{\"text\": \"aa\"}\n{\"text\": \"b\"}\n")}, *tokenizer, options);
  ASSERT_TRUE(sequences.ok()) << sequences.status();
  ASSERT_EQ(sequences->size(), 2U);
  EXPECT_THAT((*sequences)[0].tokens, ElementsAre(2, 0, 0, 1));
  EXPECT_THAT((*sequences)[1].labels, ElementsAre(2, 1, 1, kIgnoredLabel));

  EXPECT_TRUE(LoadSequences({}, *tokenizer, options)->empty());
  EXPECT_THAT(std::string(LoadSequences({Write("{}")}, *tokenizer, options).status().message()),
              HasSubstr("x.jsonl:1:"));
}

std::vector<Sequence> Numbered(int count) {
  std::vector<Sequence> sequences(count);
  for (int i = 0; i < count; ++i) sequences[i].tokens = {i};
  return sequences;
}

std::vector<int32_t> Take(BatchSource& source, int64_t count) {
  std::vector<int32_t> ids;
  for (const Sequence* sequence : source.Next(count)) ids.push_back(sequence->tokens[0]);
  return ids;
}

TEST(BatchSourceTest, AnEpochGivesEverySequenceOnceInAnOrderOfItsOwn) {
  BatchSource source(Numbered(50), 3);
  const std::vector<int32_t> first = Take(source, 50);
  const std::vector<int32_t> second = Take(source, 50);

  EXPECT_EQ(std::set<int32_t>(first.begin(), first.end()).size(), 50U);
  EXPECT_EQ(std::set<int32_t>(second.begin(), second.end()).size(), 50U);
  EXPECT_NE(first, second);
  BatchSource again(Numbered(50), 3);
  EXPECT_EQ(Take(again, 50), first);
  BatchSource other(Numbered(50), 4);
  EXPECT_NE(Take(other, 50), first);
}

// Restarting at any point gives what an undisturbed run would have had next.
TEST(BatchSourceTest, ResumesExactlyFromItsCursorAtEveryPoint) {
  BatchSource whole(Numbered(7), 1);
  const std::vector<int32_t> expected = Take(whole, 40);
  for (int64_t stop = 0; stop <= 30; ++stop) {
    BatchSource before(Numbered(7), 1);
    Take(before, stop);
    const auto cursor = Cursor::FromJson(before.cursor().ToJson());
    ASSERT_TRUE(cursor.ok()) << cursor.status();
    BatchSource after(Numbered(7), 1);
    ASSERT_TRUE(after.Seek(*cursor).ok());
    const std::vector<int32_t> rest = Take(after, 10);
    EXPECT_TRUE(std::equal(rest.begin(), rest.end(), expected.begin() + stop)) << stop;
  }
}

TEST(BatchSourceTest, APartyWithoutDataGetsEmptyBatches) {
  BatchSource source({}, 1);
  EXPECT_TRUE(source.empty());
  EXPECT_TRUE(source.Next(4).empty());
  EXPECT_EQ(source.cursor(), Cursor{});
  EXPECT_TRUE(source.Seek(source.cursor()).ok());
}

TEST(BatchSourceTest, RefusesCursorsOfOtherData) {
  BatchSource source(Numbered(5), 1);
  EXPECT_FALSE(source.Seek({0, 6}).ok());
  EXPECT_FALSE(source.Seek({-1, 0}).ok());
  for (const char* bad :
       {"", "{}", "[]", R"({"epoch": -1, "position": 0})", R"({"epoch": 1.5, "position": 0})",
        R"({"epoch": 1, "position": "0"})", R"({"epoch": 1, "position": 99999999999999999999})",
        R"({"epoch": 1, "position": 0, "more": 1})"}) {
    EXPECT_FALSE(Cursor::FromJson(bad).ok()) << bad;
  }
}

}  // namespace
}  // namespace pcmoe::data
