// pcmoe/audit/sums_test.cc: released sums come out of masked shares; documents in a sum stand out.
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/dot.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <random>

#include "pcmoe/audit/membership.h"
#include "pcmoe/audit/metrics.h"
#include "pcmoe/audit/sums_attacks.h"
#include "pcmoe/border/fixed_point.h"

namespace pcmoe::audit {
namespace {

namespace fs = std::filesystem;

model::ModelConfig Config() {
  model::ModelConfig config;
  config.vocab_size = 64;
  config.hidden_size = 16;
  config.expert_size = 8;
  config.num_layers = 1;
  config.num_experts = 4;
  config.experts_per_token = 2;
  config.sparse_layers = {true};
  config.num_heads = config.num_kv_heads = 2;
  config.head_dim = 8;
  config.initializer_range = 0.2;
  return config;
}

std::string RecordOf(wire::MessageKind kind, int from, uint16_t layer, const std::string& payload) {
  const auto head = wire::EncodeRecordHeader({.header = {.kind = kind, .step = 0, .layer = layer},
                                              .from = from,
                                              .payload_bytes = payload.size()});
  return std::string(head.begin(), head.end()) + payload;
}

absl::StatusOr<Recording> Written(const std::string& bytes) {
  const fs::path path = fs::path(testing::TempDir()) / "audit_sums_test.bin";
  std::ofstream(path, std::ios::binary) << bytes;
  return Recording::Open(path);
}

const UnitLayout kLayout = {
    {{.expert = 0, .entry = 0, .shape = {16, 16}, .first_group = 0, .parts = {256}},
     {.expert = 0, .entry = 1, .shape = {16, 8}, .first_group = 1, .parts = {128}}},
    {},
    {}};

// Parties 1 and 2 send shares of `values` whose masks cancel.
std::string Shares(const at::Tensor& values, uint8_t exponent) {
  const auto scale = border::FixedPoint::For(std::vector<uint8_t>{exponent, exponent}, 2);
  std::mt19937 random(4);
  std::string first, second;
  for (int64_t i = 0; i < values.numel(); ++i) {
    const auto whole = static_cast<uint32_t>(static_cast<int32_t>(
        std::lround(std::ldexp(values.const_data_ptr<float>()[i], scale->shift))));
    const auto mask = static_cast<uint32_t>(random());
    const uint32_t other = whole - mask;
    first.append(reinterpret_cast<const char*>(&mask), sizeof(mask));
    second.append(reinterpret_cast<const char*>(&other), sizeof(other));
  }
  const std::string exponents(2, static_cast<char>(exponent));
  std::string begin(32, '\0');
  begin[0] = 100;
  std::string bytes;
  for (const int party : {1, 2}) {
    bytes += RecordOf(wire::MessageKind::kBegin, party, 0, begin);
    bytes += RecordOf(wire::MessageKind::kExponents, party, 0, exponents);
    bytes += RecordOf(wire::MessageKind::kMaskedGradients, party, 0, party == 1 ? first : second);
  }
  return bytes;
}

TEST(SumsTest, TheSumComesOutOfTheShares) {
  at::manual_seed(3);
  const at::Tensor values = at::randn({384}).clamp(-3, 3);
  const auto recording = Written(Shares(values, 128));
  ASSERT_TRUE(recording.ok());
  const auto sum = ReadReleasedSum({.party = 0, .recording = &*recording}, kLayout, 3, 16, 0);
  ASSERT_TRUE(sum.ok()) << sum.status();
  EXPECT_EQ(sum->loss_tokens, 200);
  ASSERT_EQ(sum->experts.size(), 1U);
  EXPECT_TRUE(
      at::allclose(sum->experts[0].gate_up_fd.flatten(), values.narrow(0, 0, 256), 0, 1e-6));
  EXPECT_TRUE(at::allclose(sum->experts[0].down_df.flatten(), values.narrow(0, 256, 128), 0, 1e-6));
  // A single share tells nothing: no correlation with the values beyond chance (|r| < 0.2 at 384).
  const at::Tensor share = sum->one_share_rd.flatten();
  const double r = (at::dot(share - share.mean(), values - values.mean()) /
                    (share - share.mean()).norm() / (values - values.mean()).norm())
                       .item<double>();
  EXPECT_LT(std::abs(r), 0.2);
}

TEST(SumsTest, WhatIsMissingOrTooShortIsNamed) {
  const at::Tensor values = at::randn({384});
  const std::string whole = Shares(values.clamp(-3, 3), 128);
  const auto cut = Written(whole.substr(0, whole.size() - 10));
  const auto missing = ReadReleasedSum({.party = 0, .recording = &*cut}, kLayout, 3, 16, 0);
  EXPECT_TRUE(absl::IsFailedPrecondition(missing.status()));
  EXPECT_NE(missing.status().message().find("masked gradients of party 2"), std::string::npos);
  const auto other =
      Written(whole + RecordOf(wire::MessageKind::kMaskedGradients, 1, 0, std::string(12, 'x')));
  EXPECT_TRUE(absl::IsDataLoss(
      ReadReleasedSum({.party = 0, .recording = &*other}, kLayout, 3, 16, 0).status()));
  const auto few = Written(whole + RecordOf(wire::MessageKind::kExponents, 1, 0, "x"));
  EXPECT_FALSE(ReadReleasedSum({.party = 0, .recording = &*few}, kLayout, 3, 16, 0).ok());
}

class AlignmentTest : public testing::Test {
 protected:
  AlignmentTest() {
    at::set_num_threads(1);
    const model::ModelConfig config = Config();
    model::BackboneParameters backbone = model::EmptyBackbone(config);
    model::ExpertParameters experts = model::EmptyExperts(config, model::AllExperts(config));
    model::Initialise(config, 1, backbone);
    model::Initialise(config, 1, experts);
    base_ = std::make_unique<BaseModel>(config, backbone, experts);
  }
  std::vector<data::Sequence> Documents(size_t count) {
    std::vector<data::Sequence> documents(count);
    for (data::Sequence& document : documents) {
      for (int t = 0; t < 24; ++t) document.tokens.push_back(static_cast<int32_t>(random_() % 64));
      document.labels = document.tokens;
      document.document_starts = {0};
    }
    return documents;
  }
  ReleasedSum SumOf(std::span<const data::Sequence> documents) {
    EXPECT_TRUE(base_->Gradients(documents).ok());
    ReleasedSum sum;
    for (int64_t e = 0; e < 4; ++e) {
      const auto& layer = base_->shard().gradients()[0];
      sum.experts.push_back(
          {0, e, layer.gate_up_efd[e].clone() * 0.01, layer.down_edf[e].clone() * 0.01});
    }
    return sum;
  }
  std::mt19937 random_{8};
  std::unique_ptr<BaseModel> base_;
};

TEST_F(AlignmentTest, DocumentsInTheSumScoreHigherAndOthersOfAnotherSumDoNot) {
  const std::vector<data::Sequence> members = Documents(12), others = Documents(12);
  const std::vector<data::Sequence> shadow = Documents(48), elsewhere = Documents(12);
  const ReleasedSum sum = SumOf(members);
  const ReleasedSum unrelated = SumOf(elsewhere);
  const std::vector<ScaledSum> sums = {{&sum, 0.01}, {&unrelated, 0.01}};
  const auto in = ScoreByAlignment(sums, *base_, shadow, members);
  const auto out = ScoreByAlignment(sums, *base_, shadow, others);
  ASSERT_TRUE(in.ok() && out.ok());
  EXPECT_GT(Auc((*in)[0], (*out)[0]), 0.9);
  const double chance = Auc((*in)[1], (*out)[1]);
  EXPECT_GT(chance, 0.15);  // 12 against 12: +-0.35 is three standard errors
  EXPECT_LT(chance, 0.85);
}

// Sums of one row each are rows: matching finds whose. Rows of noise say nothing.
TEST_F(AlignmentTest, RowsOfSumsMatchTheDocumentsBehindThem) {
  at::manual_seed(6);
  std::vector<data::Sequence> documents = Documents(24);
  const auto capture = base_->Run(std::span(documents).first(12), /*gradients=*/false);
  ASSERT_TRUE(capture.ok());
  ReleasedSum readable, noise;
  for (int64_t e = 0; e < 4; ++e) {
    const at::Tensor rows = capture->x_td[0].narrow(0, e * 72, 72);
    readable.experts.push_back({0, e, rows * 0.01, at::randn({16, 8})});
    noise.experts.push_back({0, e, at::randn({72, 16}), at::randn({16, 8})});
  }
  const auto auc = [&](const ReleasedSum& sum) {
    const auto scores = ScoreByRows(RowsOfSums({&sum, 1}, *capture), 0, *base_, documents);
    return Auc(std::span(*scores).first(12), std::span(*scores).subspan(12));
  };
  EXPECT_GT(auc(readable), 0.95);
  EXPECT_NEAR(auc(noise), 0.5, 0.35);  // 12 against 12: three standard errors
  const ReleasedSum twice = Added(readable, readable);
  EXPECT_TRUE(at::allclose(twice.experts[1].gate_up_fd, readable.experts[1].gate_up_fd * 2));
}

TEST_F(AlignmentTest, TheSpanOfFewRowsHoldsTheirWordsAndOfManyHoldsAll) {
  at::manual_seed(5);
  const at::Tensor usual = at::randn({64, 16});
  ReleasedSum few;  // five rows of words 0 to 4
  few.experts.push_back({0, 0, at::randn({16, 5}).mm(usual.narrow(0, 0, 5)), at::randn({16, 8})});
  const auto scores = ScoreWordsBySpan(few, 0, usual);
  EXPECT_DOUBLE_EQ(Auc(std::span(scores).first(5), std::span(scores).subspan(5)), 1.0);
  ReleasedSum many;
  many.experts.push_back({0, 0, at::randn({16, 64}).mm(usual), at::randn({16, 8})});
  const auto all = ScoreWordsBySpan(many, 0, usual);
  EXPECT_DOUBLE_EQ(Auc(std::span(all).first(5), std::span(all).subspan(5)), 0.5);
}

}  // namespace
}  // namespace pcmoe::audit
