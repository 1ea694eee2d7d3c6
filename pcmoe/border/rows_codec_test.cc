// pcmoe/border/rows_codec_test.cc: messages of rows come back as they were, and bad ones are
// refused.
#include "pcmoe/border/rows_codec.h"

#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <random>

namespace pcmoe::border {
namespace {

constexpr int64_t kWidth = 24;

RowLimits Limits(at::ScalarType dtype = at::kFloat) {
  return {
      .max_rows = 100, .width = kWidth, .max_experts_per_row = 3, .num_experts = 8, .dtype = dtype};
}

at::Tensor Index(std::initializer_list<int64_t> values) {
  at::Tensor index = at::zeros({static_cast<int64_t>(values.size())}, at::kLong);
  std::copy(values.begin(), values.end(), index.mutable_data_ptr<int64_t>());
  return index;
}

const std::vector<WirePair> kPairs = {{0, 7, 0.25F}, {0, 1, 0.5F}, {2, 3, -1.0F}};

TEST(RowsCodecTest, ExpertRowsRoundTripInBothDtypesWithPadding) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor source = at::randn({10, kWidth}).to(dtype);
    wire::Buffer bytes = EncodeExpertRows(source, Index({9, 0, 4}), kPairs, 6);
    const auto decoded = DecodeExpertRows(bytes, Limits(dtype));
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    EXPECT_EQ(decoded->rows_rd.size(0), 6);
    EXPECT_TRUE(decoded->rows_rd.narrow(0, 0, 3).equal(source.index_select(0, Index({9, 0, 4}))));
    EXPECT_TRUE(decoded->rows_rd.narrow(0, 3, 3).eq(0).all().item<bool>());
    ASSERT_EQ(decoded->pairs.size(), kPairs.size());
    for (size_t i = 0; i < kPairs.size(); ++i) {
      EXPECT_EQ(decoded->pairs[i].row, kPairs[i].row);
      EXPECT_EQ(decoded->pairs[i].expert, kPairs[i].expert);
      EXPECT_EQ(decoded->pairs[i].weight, kPairs[i].weight);
    }
  }
}

TEST(RowsCodecTest, InputGradientsRoundTrip) {
  const at::Tensor dx = at::randn({4, kWidth});
  const at::Tensor dw = at::randn({5});
  const auto decoded = DecodeInputGradients(EncodeInputGradients(dx, dw), 4, 5, Limits());
  ASSERT_TRUE(decoded.ok());
  EXPECT_TRUE(decoded->dx_rd.equal(dx));
  EXPECT_TRUE(decoded->dweight_n.equal(dw));
  EXPECT_FALSE(DecodeInputGradients(EncodeInputGradients(dx, dw), 4, 4, Limits()).ok());
  EXPECT_FALSE(DecodeInputGradients(EncodeInputGradients(dx, dw), 5, 5, Limits()).ok());
}

TEST(RowsCodecTest, RowsOfAnotherShapeDtypeOrWithoutNumbersAreRefused) {
  at::Tensor rows = at::randn({4, kWidth});
  EXPECT_TRUE(DecodeRows(EncodeRows(rows), 4, Limits()).ok());
  EXPECT_FALSE(DecodeRows(EncodeRows(rows), 3, Limits()).ok());
  EXPECT_FALSE(DecodeRows(EncodeRows(rows), 4, Limits(at::kBFloat16)).ok());
  EXPECT_FALSE(DecodeRows(EncodeRows(at::randn({4, kWidth + 1})), 4, Limits()).ok());
  EXPECT_FALSE(DecodeRows(EncodeRows(at::randn({101, kWidth})), 101, Limits()).ok());
  rows[2][5] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_FALSE(DecodeRows(EncodeRows(rows), 4, Limits()).ok());
  rows[2][5] = -std::numeric_limits<float>::infinity();
  EXPECT_FALSE(DecodeRows(EncodeRows(rows), 4, Limits()).ok());
  EXPECT_FALSE(DecodeRows(wire::Buffer::Allocate(0), 0, Limits()).ok());
}

TEST(RowsCodecTest, ExpertsAndWeightsThatCannotBeAreRefused) {
  const at::Tensor source = at::randn({10, kWidth});
  const auto refused = [&](const WirePair& pair) {
    const std::vector<WirePair> pairs = {pair};
    return !DecodeExpertRows(EncodeExpertRows(source, Index({1, 2}), pairs, 2), Limits()).ok();
  };
  EXPECT_FALSE(refused({0, 7, 1.0F}));
  EXPECT_TRUE(refused({0, 8, 1.0F}));
  EXPECT_TRUE(refused({0, 1, std::numeric_limits<float>::infinity()}));
}

// Whatever bytes come, the decoder answers; ASan watches. What it accepts obeys the limits.
TEST(RowsCodecTest, DamagedMessagesNeverPassTheLimits) {
  std::mt19937 random(7);
  const wire::Buffer good = EncodeExpertRows(at::randn({10, kWidth}), Index({9, 0, 4}), kPairs, 4);
  for (int round = 0; round < 20000; ++round) {
    const size_t size = round % 3 == 0 ? random() % (good.size() + 1) : good.size();
    wire::Buffer bytes = wire::Buffer::Allocate(size);
    std::memcpy(bytes.writable().data(), good.bytes().data(), size);
    for (unsigned i = 0; i <= random() % 4 && size > 0; ++i) {
      bytes.writable()[random() % std::min<size_t>(size, 48)] = static_cast<uint8_t>(random());
    }
    const auto decoded = DecodeExpertRows(bytes, Limits());
    if (!decoded.ok()) continue;
    ASSERT_LE(decoded->rows_rd.size(0), 100);
    for (const WirePair& pair : decoded->pairs) {
      ASSERT_LT(pair.row, decoded->rows_rd.size(0));
      ASSERT_LT(pair.expert, 8);
    }
  }
}

TEST(RowsCodecTest, LadderCostsAtMostOneIn64FromOneHundredTwentyEightRowsOn) {
  for (int64_t rows = 0; rows < 5000; ++rows) {
    const int64_t padded = PaddedRows(rows);
    ASSERT_GE(padded, rows);
    ASSERT_EQ(PaddedRows(padded), padded);
    if (rows < 128) continue;
    ASSERT_LE(static_cast<double>(padded), static_cast<double>(rows) * 65 / 64);
  }
}

}  // namespace
}  // namespace pcmoe::border
