// pcmoe/text/tokenizer_test.cc: broken files and texts are refused with a sentence; odd ones work.
#include "pcmoe/text/tokenizer.h"

#include <atomic>
#include <chrono>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "pcmoe/text/decoder.h"
#include "pcmoe/text/normalizer.h"
#include "pcmoe/text/pattern.h"
#include "pcmoe/text/regex_translation.h"
#include "pcmoe/text/steps.h"
#include "pcmoe/text/unicode.h"

namespace pcmoe::text {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// Byte-level, with the letters of "abc", the space, and two merges.
constexpr const char* kSmall = R"({
  "added_tokens": [{"id": 6, "content": "</s>", "special": true, "normalized": false}],
  "normalizer": null, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
  "post_processor": {"type": "TemplateProcessing",
                     "single": [{"Sequence": {"id": "A", "type_id": 0}},
                                {"SpecialToken": {"id": "</s>", "type_id": 0}}],
                     "special_tokens": {"</s>": {"id": "</s>", "ids": [6], "tokens": ["</s>"]}}},
  "decoder": {"type": "ByteLevel"},
  "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "Ġ": 3, "ab": 4, "abc": 5},
            "merges": ["a b", ["ab", "c"]]}})";

std::string Replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(TokenizerTest, MergesByRankAndAddsWhatThePostProcessorSays) {
  const auto tokenizer = Tokenizer::FromJson(kSmall, "small");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();

  EXPECT_THAT(*tokenizer->Encode("abc ab</s>c"), ElementsAre(5, 3, 4, 6, 2));
  EXPECT_THAT(*tokenizer->Encode("abc", true), ElementsAre(5, 6));
  EXPECT_EQ(*tokenizer->Decode(std::vector<int32_t>{5, 3, 6, 0}), "abc </s>a");
  EXPECT_EQ(*tokenizer->Decode(std::vector<int32_t>{5, 3, 6, 0}, true), "abc a");
  EXPECT_EQ(tokenizer->vocab_size(), 7);
  EXPECT_EQ(tokenizer->TokenToId("abc"), 5);
  EXPECT_EQ(tokenizer->TokenToId("none"), std::nullopt);
  EXPECT_EQ(tokenizer->EosId(), 6);
  EXPECT_EQ(tokenizer->BosId(), std::nullopt);
}

TEST(TokenizerTest, RefusesTextAndIdsThatAreNoneNamingThem) {
  const auto tokenizer = Tokenizer::FromJson(kSmall, "small");
  ASSERT_TRUE(tokenizer.ok());

  for (const char* bad :
       {"ab\xFF", "ab\xC0\x80", "ab\xED\xA0\x80", "ab\xF4\x90\x80\x80", "ab\xE2\x82"}) {
    const auto ids = tokenizer->Encode(bad);
    EXPECT_EQ(ids.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(ids.status().message()), HasSubstr("at byte 2"));
  }
  for (const int32_t bad : {7, -1, 1 << 30}) {
    EXPECT_EQ(tokenizer->Decode(std::vector<int32_t>{0, bad}).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

struct BadFile {
  const char* from;
  const char* to;
  const char* message;
};

// Every way to break a file gives one sentence with the file's name and the part.
TEST(TokenizerTest, RefusesBrokenFilesNamingFileAndPart) {
  const BadFile files[] = {
      {R"("type": "BPE")", R"("type": "Unigram")", "small: model: the type"},
      {R"("c": 2)", R"("c": -2)", "small: model: 'vocab'"},
      {R"("c": 2)", R"("c": 4294967296)", "small: model: 'vocab'"},
      {R"("c": 2)", R"("c": 1)", "small: model: the vocabulary has the id 1 twice"},
      {R"("c": 2)", R"("c": "2")", "small: model: 'vocab'"},
      {R"("a b")", R"("a b c")", "small: model: 'merges'"},
      {R"("a b")", R"("a z")", "small: model: the merge 0"},
      {R"("a b")", "7", "small: model: 'merges'"},
      {R"("merges":)", R"("dropout": 0.1, "merges":)", "small: model: 'dropout'"},
      {R"("merges":)", R"("unk_token": "<unk>", "merges":)", "small: model: the token 'unk_token'"},
      {R"("normalizer": null)", R"("normalizer": {"type": "Lua"})", "small: normalizer: the type"},
      {R"("normalizer": null)", R"("normalizer": [])", "small: normalizer: 'type'"},
      {R"({"type": "ByteLevel", "add_prefix_space": false})",
       R"({"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": false})",
       "small: pre_tokenizer: the regular expression"},
      {R"({"type": "ByteLevel", "add_prefix_space": false})",
       R"({"type": "Split", "pattern": {"Regex": "a"}, "behavior": "Sideways", "invert": false})",
       "small: pre_tokenizer: the behavior"},
      {R"("ids": [6])", R"("ids": [7])", "small: post_processor: an id"},
      {R"("content": "</s>")", R"("content": 7)", "small: added_tokens: 'content'"},
      {R"("decoder": {"type": "ByteLevel"})", R"("decoder": {"type": "CTC"})", "small: decoder"},
      {R"("decoder")", R"(decoder)", "small: is not a JSON object"},
  };
  for (const BadFile& file : files) {
    const auto tokenizer = Tokenizer::FromJson(Replaced(kSmall, file.from, file.to), "small");
    ASSERT_FALSE(tokenizer.ok()) << file.to;
    EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr(file.message));
  }
}

TEST(TokenizerTest, DeepNestingIsRefusedNotFollowed) {
  std::string nested = R"({"type": "NFC"})";
  for (int i = 0; i < 2000; ++i) {
    nested = R"({"type": "Sequence", "normalizers": [)" + nested + "]}";
  }
  const auto tokenizer = Tokenizer::FromJson(
      Replaced(kSmall, R"("normalizer": null)", R"("normalizer": )" + nested), "x");
  EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr("nests too deep"));
  EXPECT_FALSE(Tokenizer::FromJson(std::string(1 << 20, '['), "x").ok());
}

TEST(TokenizerTest, AMissingFileIsNotFoundByName) {
  const auto tokenizer = Tokenizer::Load("/nowhere/tokenizer.json");
  EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr("/nowhere/tokenizer.json"));
}

// A word of a megabyte must cost about as much as a megabyte of words; quadratic would take hours.
TEST(TokenizerTest, OneLongWordIsNotQuadratic) {
  const auto tokenizer = Tokenizer::FromJson(kSmall, "small");
  ASSERT_TRUE(tokenizer.ok());
  std::string word;
  while (word.size() < (1 << 20)) word += "abcba";

  const auto start = std::chrono::steady_clock::now();
  const auto ids = tokenizer->Encode(word);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;

  ASSERT_TRUE(ids.ok()) << ids.status();
  EXPECT_EQ(*tokenizer->Decode(*ids), word);
  EXPECT_LT(took.count(), 10.0);
}

TEST(TokenizerTest, ThreadsMayShareOne) {
  const auto tokenizer = Tokenizer::FromJson(kSmall, "small");
  ASSERT_TRUE(tokenizer.ok());
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 2000; ++i) {
        const auto ids = tokenizer->Encode("abc ab c abc");
        if (!ids.ok() || ids->size() != 7) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

// A text that grows without end is an error, at whichever step; it is never cut.
TEST(StepsTest, AReplacementThatMakesTheTextTooLongIsRefused) {
  const std::string longer(3000, 'x');
  const auto replace = [](const std::string& to) {
    return nlohmann::json{{"type", "Replace"}, {"pattern", {{"String", "x"}}}, {"content", to}};
  };
  const auto once = Normalizer::FromJson(replace(longer));
  ASSERT_TRUE(once.ok()) << once.status();
  EXPECT_EQ(*once->Apply("axb"), "a" + longer + "b");
  EXPECT_EQ(once->Apply("xxxx").status().code(), absl::StatusCode::kInvalidArgument);

  const nlohmann::json steps = {replace("xx" + longer), replace("xxx"), replace("xxxx")};
  const auto growing = Decoder::FromJson({{"type", "Sequence"}, {"decoders", steps}});
  ASSERT_TRUE(growing.ok()) << growing.status();
  EXPECT_EQ(growing->Apply({"a", "x"}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(*growing->Apply({"a", "b"}), "ab");
}

TEST(StepsTest, MoreStepsOrLevelsThanAllowedAreRefused) {
  nlohmann::json many = {{"type", "Sequence"}, {"normalizers", nlohmann::json::array()}};
  for (size_t i = 0; i <= kMaxSteps; ++i) many["normalizers"].push_back({{"type", "NFC"}});
  EXPECT_THAT(std::string(Normalizer::FromJson(many).status().message()), HasSubstr("too many"));
  many["normalizers"].erase(0);
  EXPECT_TRUE(Normalizer::FromJson(many).ok());
  nlohmann::json deep = {{"type", "NFC"}};
  for (int i = 0; i <= kMaxNesting; ++i) deep = {{"type", "Sequence"}, {"normalizers", {deep}}};
  EXPECT_THAT(std::string(Normalizer::FromJson(deep).status().message()), HasSubstr("too deep"));
}

TEST(PatternTest, AnExplodingExpressionEndsWithAnError) {
  const auto pattern = Pattern::Regex("(a+)+$b");
  ASSERT_TRUE(pattern.ok()) << pattern.status();
  const auto found = pattern->Find(std::string(60, 'a') + "c");
  EXPECT_TRUE(found.ok() || found.status().code() == absl::StatusCode::kInvalidArgument);
  for (const char* unsupported :
       {R"(\h+)", R"(\bword)", "[a&&b]", "[a[b]]", R"([^\S\n])", "(*FAIL)"}) {
    EXPECT_FALSE(TranslateRegex(unsupported).ok()) << unsupported;
  }
}

TEST(UnicodeTest, LossyTextReplacesEachMaximalBrokenPartOnce) {
  EXPECT_EQ(LossyUtf8("a\xE2\x82z\xFF\xF0\x9F\x98\x80"), "a\uFFFDz\uFFFD\U0001F600");
  EXPECT_EQ(FindInvalidUtf8("\U0010FFFF\uD7FF"), std::string_view::npos);
}

}  // namespace
}  // namespace pcmoe::text
