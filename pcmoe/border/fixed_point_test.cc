// pcmoe/border/fixed_point_test.cc: sums that are exact, rounding that is fair, ranges that hold.
#include "pcmoe/border/fixed_point.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "pcmoe/border/mask_loops.h"
#include "pcmoe/border/test_federation.h"

namespace pcmoe::border {
namespace {

using testing::HasSubstr;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<float> Normal(size_t count, uint32_t seed, float sigma) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, sigma);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

FixedPoint Scale(std::vector<uint8_t> exponents, int contributors) {
  auto scale = FixedPoint::For(exponents, contributors);
  EXPECT_TRUE(scale.ok()) << scale.status();
  return scale.value_or(FixedPoint{});
}

RoundingKey Rounding(uint8_t seed) {
  std::array<uint8_t, 32> secret{};
  secret.fill(seed);
  return *RoundingKey::Derive(secret, wire::RunId{});
}

// The integers themselves: one contributor, no peers.
std::vector<int32_t> Integers(const std::vector<float>& values, const FixedPoint& scale,
                              const RoundingKey& rounding, const MaskPlace& place) {
  auto masks = MakeFederation(2);
  masks[0].AllowNoPeers();
  std::vector<uint32_t> out(values.size());
  EXPECT_TRUE(MaskedFixedPoint(values.data(), values.size(), scale, rounding, place, {}, masks[0],
                               out.data())
                  .ok());
  return {out.begin(), out.end()};
}

TEST(ExponentOf, IsTheSmallestByteThatBounds) {
  const float smallest = std::numeric_limits<float>::denorm_min();
  EXPECT_EQ(ExponentOf({}), 0);
  EXPECT_EQ(ExponentOf(std::vector<float>{0.0F, -0.0F}), 0);
  EXPECT_EQ(ExponentOf(std::vector<float>{0, -smallest}), 1);
  EXPECT_EQ(ExponentOf(std::vector<float>{std::numeric_limits<float>::min()}), 1);
  EXPECT_EQ(ExponentOf(std::vector<float>{0.5F, -0.75F}), 126);
  EXPECT_EQ(ExponentOf(std::vector<float>{-1.0F}), 127);
  EXPECT_EQ(ExponentOf(std::vector<float>{std::numeric_limits<float>::max()}), 254);
  EXPECT_EQ(ExponentOf(std::vector<float>{1.0F, kInfinity}), 255);
  EXPECT_EQ(ExponentOf(std::vector<float>{-std::nanf(""), 1.0F}), 255);
  // Wherever the largest stands, whatever the length.
  for (size_t count : {1, 7, 16, 31, 100}) {
    for (size_t at = 0; at < count; ++at) {
      std::vector<float> values(count, 0.001F);
      values[at] = -3.0F;
      EXPECT_EQ(ExponentOf(values), 128) << count << " " << at;
    }
  }
  for (const float value : Normal(1000, 1, 1e10F)) {
    const int byte = ExponentOf({&value, 1});
    EXPECT_LT(std::fabs(value), std::ldexp(1.0, byte - 126));
    EXPECT_GE(std::fabs(value), std::ldexp(1.0, byte - 127));
  }
}

TEST(FixedPoint, LeavesRoomForEveryContributor) {
  for (int contributors = 1; contributors <= 300; ++contributors) {
    for (int byte = 1; byte < 255; ++byte) {
      const FixedPoint scale = Scale({static_cast<uint8_t>(byte)}, contributors);
      EXPECT_LE(contributors * static_cast<double>(scale.limit), 2147483647.0);
      // The told bound is just inside, and no whole bit is wasted.
      EXPECT_EQ(std::ldexp(1.0, byte - 126 + scale.shift), scale.limit);
      EXPECT_TRUE(scale.shift == 127 || 2.0 * contributors * scale.limit > 2147483647.0);
    }
  }
  EXPECT_EQ(Scale({1, 130, 7}, 3).shift, Scale({130}, 3).shift);
}

TEST(FixedPoint, RefusesWhatCannotBeScaled) {
  const std::vector<uint8_t> one = {127};
  EXPECT_EQ(FixedPoint::For({}, 3).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(FixedPoint::For(one, 0).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(FixedPoint::For(one, 65536).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(FixedPoint::For(one, 65535).ok());
  const auto refused = FixedPoint::For(std::vector<uint8_t>{127, 255}, 2);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kDataLoss);
}

TEST(MaskedFixedPoint, IsExactForEveryNumberOfParties) {
  constexpr size_t kCount = 5000;
  std::mt19937 random(11);
  for (int n = 3; n <= 16; ++n) {
    auto masks = MakeFederation(n);
    const int owner = static_cast<int>(random() % n);
    std::vector<std::vector<float>> values(n);
    std::vector<uint8_t> exponents;
    for (int party = 0; party < n; ++party) {
      values[party] =
          Normal(kCount, static_cast<uint32_t>(random()), std::ldexp(1.0F, party % 5 - 8));
      if (party != owner) exponents.push_back(ExponentOf(values[party]));
    }
    const FixedPoint scale = Scale(exponents, n - 1);
    std::vector<uint32_t> sum(kCount);
    std::vector<int64_t> exact(kCount);
    std::vector<double> real(kCount);
    for (int party = 0; party < n; ++party) {
      if (party == owner) continue;
      const RoundingKey rounding = Rounding(static_cast<uint8_t>(party));
      const MaskPlace place{5, 2, 3};
      const auto peers = PeersOf(party, n, owner);
      std::vector<uint32_t> share(kCount);
      ASSERT_TRUE(MaskedFixedPoint(values[party].data(), kCount, scale, rounding, place, peers,
                                   masks[party], share.data())
                      .ok());
      AddInto(sum.data(), reinterpret_cast<const uint8_t*>(share.data()), kCount);
      const auto integers = Integers(values[party], scale, rounding, place);
      for (size_t i = 0; i < kCount; ++i) {
        exact[i] += integers[i];
        real[i] += values[party][i];
      }
    }
    std::vector<float> decoded(kCount);
    DecodeSum(sum.data(), kCount, scale, decoded.data());
    const double unit = std::ldexp(1.0, -scale.shift);
    for (size_t i = 0; i < kCount; ++i) {
      ASSERT_EQ(static_cast<int32_t>(sum[i]), exact[i]) << n << " " << i;
      ASSERT_EQ(decoded[i], static_cast<float>(static_cast<double>(exact[i]) * unit));
      ASSERT_LT(std::fabs(static_cast<double>(exact[i]) * unit - real[i]), (n - 1) * unit);
    }
  }
}

}  // namespace
}  // namespace pcmoe::border
