// pcmoe/eval/eval_test.cc: accuracy by likelihood against the plain way: a whole sequence for every
// label, its logits, a softmax by hand. Shape legend: S length, V vocabulary.
#include <ATen/ops/log_softmax.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "pcmoe/eval/batches.h"
#include "pcmoe/eval/whole_model.h"
#include "pcmoe/model/parameters.h"

namespace pcmoe::eval {
namespace {

namespace fs = std::filesystem;

constexpr char kConfig[] = R"({"model_type": "olmoe", "vocab_size": 24, "hidden_size": 16,
  "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
  "intermediate_size": 8, "num_experts": 4, "num_experts_per_tok": 2,
  "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
  "tie_word_embeddings": false, "hidden_act": "silu", "initializer_range": 0.4})";

text::Tokenizer Letters() {
  return *text::Tokenizer::FromJson(
      R"({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
          "decoder": {"type": "ByteLevel"}, "model": {"type": "BPE", "vocab":
          {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4, "f": 5, "g": 6, "Ċ": 7, "h": 8}, "merges": []}})",
      "letters");
}

class EvalTest : public testing::Test {
 protected:
  EvalTest() : folder_(fs::temp_directory_path() / absl::StrCat("pcmoe_eval_", ::getpid())) {
    fs::create_directories(folder_);
    std::ofstream(folder_ / "config.json") << kConfig;
    config_ = *model::LoadConfig(folder_);
    auto backbone = model::EmptyBackbone(config_);
    auto experts = model::EmptyExperts(config_, model::AllExperts(config_));
    model::Initialise(config_, 3, backbone);
    model::Initialise(config_, 3, experts);
    EXPECT_TRUE(model::SaveCheckpoint(folder_, config_, backbone, experts).ok());
  }
  ~EvalTest() override { fs::remove_all(folder_); }

  absl::StatusOr<EvalSet> Load(const std::string& rows, int64_t batch_tokens = 32,
                               std::vector<std::string> labels = {}) const {
    std::ofstream(folder_ / "rows.jsonl") << rows;
    return EvalSet::Load(folder_ / "rows.jsonl", Letters(),
                         {.dataset = {.pack = {.sequence_length = 12, .eos_id = 9}},
                          .batch_tokens = batch_tokens,
                          .labels = std::move(labels)});
  }

  // Log-likelihood of the ids after the prompt, a forward by itself.
  double Slow(std::vector<int32_t> prompt, const std::vector<int32_t>& ids) const {
    auto backbone = model::EmptyBackbone(config_);
    auto experts = model::EmptyExperts(config_, model::AllExperts(config_));
    EXPECT_TRUE(model::LoadCheckpoint(folder_, config_, backbone, experts).ok());
    model::Backbone whole(config_, std::move(backbone), {});
    model::ExpertShard shard(config_, std::move(experts), {});
    model::LocalExperts local(shard);
    const size_t length = prompt.size();
    prompt.insert(prompt.end(), ids.begin(), ids.end());
    const data::Sequence sequence{prompt, prompt, {0}};
    const data::Sequence* one = &sequence;
    EXPECT_TRUE(local.BeginPass({.micro_batches_p = {1}, .training = false}).ok());
    const at::Tensor logits = *whole.Logits(ToMicroBatch({&one, 1}), local);
    EXPECT_TRUE(local.FinishPass().ok());
    const at::Tensor log_probs = at::log_softmax(logits[0], -1);
    double sum = 0;
    for (size_t k = 0; k < ids.size(); ++k) {
      sum += log_probs[static_cast<int64_t>(length + k) - 1][ids[k]].item<double>();
    }
    return sum;
  }

  const fs::path folder_;
  model::ModelConfig config_;
};

TEST_F(EvalTest, FindsTheLabelsThatTheSlowWayFinds) {
  // Labels of one token, of several, and one that begins like another.
  const std::vector<std::vector<int32_t>> labels = {{0}, {1, 2}, {1, 2, 3}, {4, 5}};
  const std::vector<std::string> words = {"a", "bc", "bcd", "ef"};
  std::string rows;
  Accuracy expected;
  int differ = 0;
  for (int i = 0; i < 40; ++i) {
    std::vector<int32_t> prompt;
    std::string text;
    for (int k = 0; k <= i % 7; ++k) {
      const int letter = (i * 5 + k * k * 3) % 7;
      text += static_cast<char>('a' + letter);
      prompt.push_back(letter);
    }
    prompt.push_back(7);
    const size_t gold = static_cast<size_t>(i) % words.size();
    rows += absl::StrCat("{\"text\": \"", text, "\", \"label\": \"", words[gold], "\"}\n");
    std::vector<double> sums, normalised;
    for (size_t l = 0; l < labels.size(); ++l) {
      sums.push_back(Slow(prompt, labels[l]));
      normalised.push_back(sums.back() / static_cast<double>(words[l].size()));
    }
    const auto best = [](const std::vector<double>& s) {
      return static_cast<size_t>(std::max_element(s.begin(), s.end()) - s.begin());
    };
    differ += best(sums) != best(normalised) ? 1 : 0;
    expected.right += best(sums) == gold ? 1 : 0;
    expected.right_normalised += best(normalised) == gold ? 1 : 0;
  }
  const auto whole = WholeModel::Load(folder_, at::kFloat);
  ASSERT_TRUE(whole.ok()) << whole.status();
  for (const int64_t batch_tokens : {12, 50, 10000}) {
    const auto set = Load(rows, batch_tokens);
    ASSERT_TRUE(set.ok()) << set.status();
    const auto result = (*whole)->Evaluate(*set);
    ASSERT_TRUE(result.ok()) << result.status();
    ASSERT_TRUE(result->accuracy.has_value());
    EXPECT_EQ(result->accuracy->examples, 40);
    EXPECT_EQ(result->accuracy->right, expected.right);
    EXPECT_EQ(result->accuracy->right_normalised, expected.right_normalised);
    EXPECT_EQ(result->accuracy->majority, 10);
  }
  EXPECT_GT(differ, 0);  // else the test could not tell them apart
}

TEST_F(EvalTest, LossIsOfTheCompletionsAndDoesNotDependOnTheBatches) {
  const std::string rows =
      "{\"text\": \"ab\", \"label\": \"c\"}\n{\"prompt\": \"defg\", \"completion\": \"ab\"}\n"
      "{\"text\": \"gab\"}\n";
  const auto whole = WholeModel::Load(folder_, at::kFloat);
  ASSERT_TRUE(whole.ok());
  const double expected =
      -(Slow({0, 1, 7}, {2, 9}) + Slow({3, 4, 5, 6}, {0, 1, 9}) + Slow({6}, {0, 1, 9}));
  for (const int64_t batch_tokens : {1, 1000}) {
    const auto set = Load(rows, batch_tokens);
    ASSERT_TRUE(set.ok()) << set.status();
    const auto result = (*whole)->Evaluate(*set);
    ASSERT_TRUE(result.ok());
    EXPECT_EQ(result->loss_tokens, 2 + 3 + 3);
    EXPECT_NEAR(result->loss_sum, expected, 1e-4);
    EXPECT_EQ(result->accuracy->examples, 1);
  }
}

TEST_F(EvalTest, LongTextsAreCutSoThatEveryLabelFits) {
  const auto set = Load("{\"text\": \"abcdefgabcdefg\", \"label\": \"a\"}\n", 32, {"a", "bcdef"});
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_EQ(set->counts().cut, 1);
  for (const model::MicroBatch& batch : set->batches()) EXPECT_LE(batch.tokens_bs.size(1), 12);
  EXPECT_FALSE(Load("{\"text\": \"a\", \"label\": \"b\"}\n", 32, {"a"}).ok());
  // Twelve tokens of label leave no room for the text that they would follow.
  const auto none = Load("{\"text\": \"a\", \"label\": \"bcdefgabcdef\"}\n");
  EXPECT_EQ(none.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(none.status().message()), testing::HasSubstr(":1: has no token before"));
}

}  // namespace
}  // namespace pcmoe::eval
