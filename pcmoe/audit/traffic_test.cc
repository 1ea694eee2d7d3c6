// pcmoe/audit/traffic_test.cc: counts and sizes tell what they do without masks, and nothing with.
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/one_hot.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <fstream>
#include <random>

#include "pcmoe/audit/metrics.h"
#include "pcmoe/audit/traffic_attacks.h"

namespace pcmoe::audit {
namespace {

constexpr int64_t kLayers = 2, kExperts = 6, kVocab = 30, kLength = 40;
constexpr int kSteps = 12, kParties = 3, kSequences = 4;

// Token v goes to expert v % 6 in layer 0, (v / 6) % 6 in layer 1; each sequence likes a few
// tokens.
class TrafficTest : public testing::Test {
 protected:
  TrafficTest() {
    at::set_num_threads(1);
    at::manual_seed(2);
    for (int step = 0; step < kSteps; ++step) {
      for (int party = 1; party <= kParties; ++party) {
        CountsShare share{.step = step, .home = party};
        share.words.resize(kLayers * kExperts, 0);
        for (int n = 0; n < kSequences; ++n) {
          texts_.push_back({step, party, Tokens(), {}});
          texts_.back().counts_le = CountsOf(texts_.back().tokens_t);
          const at::Tensor flat = texts_.back().counts_le.flatten();
          for (int64_t w = 0; w < flat.size(0); ++w) {
            share.words[static_cast<size_t>(w)] += static_cast<uint32_t>(flat[w].item<float>());
          }
        }
        plain_.push_back(share);
        for (uint32_t& word : share.words) word += static_cast<uint32_t>(random_());
        masked_.push_back(share);
      }
    }
    std::vector<at::Tensor> tokens;
    for (int n = 0; n < 400; ++n) tokens.push_back(Tokens());
    shadow_.tokens_t = at::stack(tokens).flatten();
    shadow_.gate_te = {
        at::one_hot(shadow_.tokens_t % kExperts, kExperts).to(at::kFloat),
        at::one_hot(shadow_.tokens_t.floor_divide(6) % kExperts, kExperts).to(at::kFloat)};
  }
  static at::Tensor Tokens() {
    const at::Tensor liked = at::randint(kVocab, {3}, at::TensorOptions(at::kLong));
    return liked.index_select(0, at::randint(3, {kLength}, at::TensorOptions(at::kLong)));
  }
  static at::Tensor CountsOf(const at::Tensor& tokens) {
    return at::stack({at::one_hot(tokens % kExperts, kExperts).sum(0),
                      at::one_hot(tokens.floor_divide(6) % kExperts, kExperts).sum(0)})
        .to(at::kFloat);
  }
  std::mt19937 random_{5};
  std::vector<Text> texts_;
  std::vector<CountsShare> plain_, masked_;
  Capture shadow_;
};

// 72 tries: three standard errors of a chance AUC are 0.11.
TEST_F(TrafficTest, CountsWithoutMasksNameTheirBatch) {
  const Scores open = BatchesByCounts(texts_).Match(plain_);
  ASSERT_EQ(open.in.size(), static_cast<size_t>(kLayers * kSteps * kParties));
  EXPECT_GT(Auc(open.in, open.out), 0.99);
  const Scores hidden = BatchesByCounts(texts_).Match(masked_);
  EXPECT_NEAR(Auc(hidden.in, hidden.out), 0.5, 0.11);
}

// As in a short recording: three steps, and every party has a manner of its own. Tries that share a
// message, and messages that share a sum, depend on each other: an interval that resamples tries as
// if they did not left a half out in 28 of 300 draws of words. The one from fresh masks is meant to
// do so in 15 (standard deviation 3.8).
TEST_F(TrafficTest, IntervalsOfMaskedCountsHoldAHalfAsOftenAsTheySay) {
  constexpr int kDraws = 300;
  std::vector<Text> texts;
  for (const Text& text : texts_) {
    if (text.step >= 3) continue;
    texts.push_back(text);
    texts.back().counts_le = text.counts_le.clone();
    texts.back().counts_le.select(1, text.home).add_(15);
  }
  std::vector<CountsShare> plain;
  for (const CountsShare& share : plain_) {
    if (share.step < 3) plain.push_back(share);
  }
  const BatchesByCounts batches(texts);
  const auto match = [&](std::span<const CountsShare> of) { return batches.Match(of); };
  const std::vector<double> null = AucsOfFreshMasks(plain, 1000, match);
  double sum = 0;
  int left_out = 0, unlikely = 0;
  for (int draw = 0; draw < kDraws; ++draw) {
    std::vector<CountsShare> shares = plain;  // masks of every pair, as the protocol has them
    for (CountsShare& one : shares) {
      for (CountsShare& other : shares) {
        if (one.step != other.step || one.home >= other.home) continue;
        for (size_t i = 0; i < one.words.size(); ++i) {
          const auto mask = static_cast<uint32_t>(random_());
          one.words[i] += mask;
          other.words[i] -= mask;
        }
      }
    }
    const Scores scores = match(shares);
    const Estimate estimate = AgainstNull(Auc(scores.in, scores.out), null);
    sum += estimate.value;
    left_out += estimate.low > 0.5 || estimate.high < 0.5 ? 1 : 0;
    unlikely += TwoSidedP(estimate.value, null) <= 0.05 ? 1 : 0;
  }
  RecordProperty("left_out", left_out);
  EXPECT_NEAR(sum / kDraws, 0.5, 0.02);
  EXPECT_NEAR(left_out, 15, 12);
  EXPECT_NEAR(unlikely, 15, 12);
  // Without masks the same interval is far from a half.
  const Scores open = match(plain);
  EXPECT_GT(AgainstNull(Auc(open.in, open.out), null).low, 0.6);
}

TEST_F(TrafficTest, RoutingWithoutMasksNamesItsSequences) {
  const SequencesByRouting routing(texts_, shadow_, kLength, kVocab, 4);
  const Scores open = routing.Match(plain_);
  EXPECT_EQ(open.in.size(), open.out.size());
  EXPECT_GT(Auc(open.in, open.out), 0.75);
  const Scores hidden = routing.Match(masked_);
  EXPECT_NEAR(Auc(hidden.in, hidden.out), 0.5, 0.11);
  const std::vector<double> null = AucsOfFreshMasks(
      plain_, 200, [&](std::span<const CountsShare> of) { return routing.Match(of); });
  EXPECT_GT(AgainstNull(Auc(open.in, open.out), null).low, 0.6);
}

TEST_F(TrafficTest, SizesTellOnlyWhenTheyDependOnTheRows) {
  const std::set<std::pair<int64_t, int64_t>> own = {{0, 1}, {1, 2}};
  std::vector<MessageSize> growing, constant;
  for (const CountsShare& share : plain_) {
    if (share.step == kSteps - 1) continue;  // an odd number: its mean is no round number
    const uint64_t rows = share.words[1] + share.words[kExperts + 2];
    MessageSize size{.kind = wire::MessageKind::kMaskedGradients,
                     .step = share.step,
                     .from = share.home,
                     .bytes = 1000 + 4 * rows};
    growing.push_back(size);
    size.bytes = 1001 + static_cast<uint64_t>(share.home) * 7777;  // of its sender, not its text
    constant.push_back(size);
  }
  const Scores open = MatchRowsBySizes(growing, texts_, own);
  EXPECT_GT(Auc(open.in, open.out), 0.9);
  const Scores hidden = MatchRowsBySizes(constant, texts_, own);
  ASSERT_FALSE(hidden.in.empty());
  EXPECT_DOUBLE_EQ(Auc(hidden.in, hidden.out), 0.5);
}

TEST_F(TrafficTest, SharesAreReadFromTheLastAttempt) {
  std::string bytes;
  const auto add = [&bytes](uint32_t attempt, const std::vector<uint32_t>& words) {
    const auto head = wire::EncodeRecordHeader(
        {.header = {.kind = wire::MessageKind::kMaskedCounts, .step = 3, .attempt = attempt},
         .from = 2,
         .payload_bytes = 4 * words.size()});
    bytes.append(head.begin(), head.end());
    bytes.append(reinterpret_cast<const char*>(words.data()), 4 * words.size());
  };
  add(0, {1, 2});
  add(1, {3, 4});
  const std::filesystem::path path =
      std::filesystem::path(testing::TempDir()) / "audit_traffic_test.bin";
  std::ofstream(path, std::ios::binary) << bytes;
  const auto recording = Recording::Open(path);
  ASSERT_TRUE(recording.ok());
  const auto shares = ReadCounts({.party = 0, .recording = &*recording}, 2);
  ASSERT_TRUE(shares.ok());
  ASSERT_EQ(shares->size(), 1U);
  EXPECT_EQ((*shares)[0].words, (std::vector<uint32_t>{3, 4}));
  EXPECT_EQ((*shares)[0].home, 2);
  EXPECT_TRUE(absl::IsDataLoss(ReadCounts({.party = 0, .recording = &*recording}, 3).status()));
}

}  // namespace
}  // namespace pcmoe::audit
