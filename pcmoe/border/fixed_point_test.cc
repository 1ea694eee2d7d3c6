// pcmoe/border/fixed_point_test.cc: sums that are exact, rounding that is fair, ranges that hold.
#include "pcmoe/border/fixed_point.h"

#ifdef __SSE2__
#include <xmmintrin.h>
#endif

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "pcmoe/border/mask_loops.h"
#include "pcmoe/border/test_federation.h"

namespace pcmoe::border {
namespace {

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

TEST(MaskedFixedPoint, DoesNotWrapAtTheExtremes) {
  // Every contributor at the end of its range, where rounding away from zero reaches the limit.
  for (int n = 3; n <= 16; ++n) {
    for (const float value : {std::nextafter(2.0F, 0.0F), -std::nextafter(2.0F, 0.0F)}) {
      auto masks = MakeFederation(n);
      const FixedPoint scale = Scale({ExponentOf({&value, 1})}, n - 1);
      const std::vector<float> values(1000, value);
      std::vector<uint32_t> sum(values.size());
      for (int party = 0; party < n - 1; ++party) {
        std::vector<uint32_t> share(values.size());
        ASSERT_TRUE(MaskedFixedPoint(values.data(), values.size(), scale, Rounding(1), {1, 1, 1},
                                     PeersOf(party, n, n - 1), masks[party], share.data())
                        .ok());
        AddInto(sum.data(), reinterpret_cast<const uint8_t*>(share.data()), sum.size());
      }
      std::vector<float> decoded(values.size());
      DecodeSum(sum.data(), sum.size(), scale, decoded.data());
      for (const float result : decoded) {
        ASSERT_NEAR(result, static_cast<double>(value) * (n - 1), 1e-5 * n);
      }
    }
  }
}

TEST(MaskedFixedPoint, RefusesWhatIsOutOfRangeWhereverItStands) {
  const FixedPoint scale = Scale({127}, 3);  // |x| < 2
  for (const float bad :
       {2.0F, -2.0F, 1e30F, kInfinity, -kInfinity, std::nanf(""), -std::nanf("")}) {
    for (const size_t at : {0UL, 15UL, 16UL, 2047UL, 2048UL, 4999UL}) {
      auto masks = MakeFederation(3);
      std::vector<float> values(5000, std::nextafter(2.0F, 0.0F));
      values[at] = bad;
      std::vector<uint32_t> out(values.size());
      auto writer =
          MaskedWriter::Create(scale, Rounding(1), {1, 1, 1}, std::vector<int>{1, 2}, masks[0]);
      ASSERT_TRUE(writer.ok());
      EXPECT_EQ(writer->Append(values.data(), values.size(), out.data()).code(),
                absl::StatusCode::kOutOfRange)
          << bad << " " << at;
      values[at] = 0;  // too late
      EXPECT_EQ(writer->Append(values.data(), 1, out.data()).code(),
                absl::StatusCode::kFailedPrecondition);
    }
  }
  // Who told that all is zero may add zeros alone.
  const FixedPoint nothing = Scale({0, 0}, 2);
  EXPECT_EQ(Integers({0.0F, -0.0F}, nothing, Rounding(1), {1, 1, 1}), (std::vector<int32_t>{0, 0}));
  for (const float bad : {std::numeric_limits<float>::denorm_min(), -1e-38F, 1.0F}) {
    auto masks = MakeFederation(3);
    uint32_t out = 0;
    EXPECT_EQ(MaskedFixedPoint(&bad, 1, nothing, Rounding(1), {1, 1, 1}, std::vector<int>{1},
                               masks[0], &out)
                  .code(),
              absl::StatusCode::kOutOfRange);
  }
}

#ifdef __SSE2__
TEST(MaskedFixedPoint, PassesZerosWhereDenormalsAreFlushed) {
  const unsigned before = _mm_getcsr();
  _mm_setcsr(before | 0x8040U);  // FTZ and DAZ, as in a party's process
  const auto integers = Integers({0.0F, -0.0F}, Scale({0, 0}, 2), Rounding(1), {1, 1, 1});
  _mm_setcsr(before);
  EXPECT_EQ(integers, (std::vector<int32_t>{0, 0}));
}
#endif

TEST(MaskedFixedPoint, KeepsTheSmallestAndTheLargestFloats) {
  for (const float value : {std::numeric_limits<float>::denorm_min(), 1e-42F, 1.5e-38F, 3e38F}) {
    const FixedPoint scale = Scale({ExponentOf({&value, 1})}, 2);
    const auto integers = Integers(std::vector<float>(100, value), scale, Rounding(1), {1, 1, 1});
    for (const int32_t integer : integers) {
      EXPECT_LE(std::fabs(std::ldexp(integer, -scale.shift) - static_cast<double>(value)),
                std::ldexp(1.0, -scale.shift));
    }
  }
}

TEST(MaskedFixedPoint, IsTheSameInSegmentsAndAcrossAttempts) {
  const std::vector<float> values = Normal(20000, 3, 1);
  const FixedPoint scale = Scale({ExponentOf(values)}, 3);
  const std::vector<int> peers = {0, 2};
  auto masks = MakeFederation(3);
  std::vector<uint32_t> whole(values.size());
  ASSERT_TRUE(MaskedFixedPoint(values.data(), values.size(), scale, Rounding(4), {1, 2, 3}, peers,
                               masks[1], whole.data())
                  .ok());
  std::mt19937 random(5);
  for (int round = 0; round < 20; ++round) {
    auto again = MakeFederation(3);
    auto writer = MaskedWriter::Create(scale, Rounding(4), {1, 2, 3}, peers, again[1]);
    ASSERT_TRUE(writer.ok());
    std::vector<uint32_t> parts(values.size());
    for (size_t at = 0; at < values.size();) {
      const size_t piece =
          std::min<size_t>(values.size() - at, random() % (round < 10 ? 50 : 5000));
      ASSERT_TRUE(writer->Append(values.data() + at, piece, parts.data() + at).ok());
      at += piece;
    }
    ASSERT_EQ(parts, whole);
  }
  // Fresh masks, other rounding key, other place: the rounding follows key and place alone.
  const auto integers = Integers(values, scale, Rounding(4), {1, 2, 3});
  EXPECT_EQ(integers, Integers(values, scale, Rounding(4), {1, 2, 3}));
  EXPECT_NE(integers, Integers(values, scale, Rounding(5), {1, 2, 3}));
  EXPECT_NE(integers, Integers(values, scale, Rounding(4), {2, 2, 3}));
}

TEST(MaskLoops, GiveTheSameBitsOnAllLevels) {
  constexpr size_t kCount = 1003;
  std::vector<const MaskLoops*> levels = {&BaselineMaskLoops()};
  if (__builtin_cpu_supports("avx2")) levels.push_back(&Avx2MaskLoops());
  if (__builtin_cpu_supports("avx512dq")) levels.push_back(&Avx512MaskLoops());
  std::mt19937 random(8);
  std::vector<float> values = Normal(kCount, 9, 1000);
  values[5] = std::numeric_limits<float>::denorm_min();
  values[6] = -0.0F;
  values[7] = -0.3F;
  std::vector<uint32_t> words(kCount);
  std::vector<uint32_t> mask(kCount);
  for (uint32_t& word : words) word = static_cast<uint32_t>(random());
  for (uint32_t& word : mask) word = static_cast<uint32_t>(random());
  const std::vector<uint32_t> zeros(kCount);
  const auto run = [&](const MaskLoops& loops) {
    std::vector<uint32_t> out(kCount);
    EXPECT_TRUE(loops.round_and_mask(values.data(), kCount, 3.0F, 65536, words.data(), 2891336453U,
                                     {mask.data(), zeros.data()}, 0, out.data()));
    std::vector<uint32_t> sum = out;
    for (const bool first : {false, true}) {
      for (const bool second : {false, true}) {
        std::vector<uint32_t> masked(kCount - 1);
        loops.round_and_mask(values.data() + 1, kCount - 1, 3.0F, 65536, words.data() + 1,
                             2891336453U, {mask.data(), words.data(), first, second}, 1,
                             masked.data());
        for (size_t i = 1; i < kCount; ++i) {
          const uint32_t net = (first ? 0 - mask[i] : mask[i]) + (second ? 0 - words[i] : words[i]);
          EXPECT_EQ(masked[i - 1] - net, out[i] - mask[i]) << loops.name;
        }
      }
    }
    loops.combine(sum.data(), true, words.data(), false, kCount);
    loops.combine(sum.data(), false, mask.data(), true, kCount);
    loops.add(sum.data(), reinterpret_cast<const uint8_t*>(words.data()) + 1, kCount - 1);
    std::vector<float> decoded = values;
    loops.decode(sum.data(), kCount, std::ldexp(1.0, -20), decoded.data());
    for (const float value : decoded) sum.push_back(std::bit_cast<uint32_t>(value));
    sum.push_back(static_cast<uint32_t>(loops.max_magnitude(values.data(), kCount)));
    return std::pair(out, sum);
  };
  const auto first = run(*levels[0]);
  for (size_t i = 0; i < kCount; ++i) {  // what is left below the mask, against a slow reference
    const double error =
        static_cast<int32_t>(first.first[i] - mask[i]) - static_cast<double>(values[i] * 3.0F);
    ASSERT_LT(std::fabs(error), 1);
  }
  for (const MaskLoops* level : levels) EXPECT_EQ(run(*level), first) << level->name;
  EXPECT_THAT(std::string(ActiveMaskLoops().name), testing::AnyOf("avx512", "avx2", "baseline"));
}

TEST(MaskIntegers, SumToTheCounts) {
  constexpr int kParties = 5;
  auto masks = MakeFederation(kParties);
  std::vector<uint32_t> sum(3000);
  std::vector<uint32_t> expected(3000);
  for (int party = 0; party < kParties; ++party) {
    std::vector<uint32_t> counts(sum.size());
    for (size_t i = 0; i < counts.size(); ++i) {
      counts[i] = static_cast<uint32_t>(i * i + 31 * party);
      expected[i] += counts[i];
    }
    std::vector<uint32_t> share(sum.size());
    ASSERT_TRUE(MaskIntegers(counts.data(), counts.size(), {1, 2, 3}, PeersOf(party, kParties, -1),
                             masks[party], share.data())
                    .ok());
    std::vector<uint8_t> bytes(4 * share.size() + 1);  // at an odd address, as a message may be
    std::memcpy(bytes.data() + 1, share.data(), 4 * share.size());
    AddInto(sum.data(), bytes.data() + 1, share.size());
  }
  EXPECT_EQ(sum, expected);
}

TEST(DecodeSum, AddsInDoubleAndRoundsOnce) {
  FixedPoint scale;
  scale.shift = 20;
  const std::vector<uint32_t> sum = {0, 1, ~0U, 0x7fffffff, 0x80000000, 3};
  std::vector<float> values = {1.5F, 0, 0, 1, -1, 1e30F};
  std::vector<float> expected = values;
  for (size_t i = 0; i < sum.size(); ++i) {
    expected[i] = static_cast<float>(expected[i] + static_cast<int32_t>(sum[i]) * 0x1p-20);
  }
  DecodeSum(sum.data(), sum.size(), scale, values.data());
  EXPECT_EQ(values, expected);
}

}  // namespace
}  // namespace pcmoe::border
