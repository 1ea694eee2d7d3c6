// pcmoe/border/rounding_test.cc: stochastic rounding is fair, and two roundings do not know each
// other.
#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "pcmoe/border/fixed_point.h"
#include "pcmoe/border/test_federation.h"

namespace pcmoe::border {
namespace {

// The mean of N roundings of a fraction f has a standard deviation of sqrt(f (1 - f) / N); each
// bound is 5 of them: a false alarm once in 1.7e6 for each of the 40 checks.
TEST(Rounding, IsUnbiasedAndHasTheVarianceOfACoin) {
  constexpr size_t kCount = 4'000'000;
  FixedPoint scale;
  scale.limit = 1024;
  uint32_t unit = 0;
  for (const double f : {0.0, std::ldexp(1.0, -16), 0.001, 0.25, 1.0 / 3, 0.5, 0.75, 0.999,
                         1 - std::ldexp(1.0, -16), 1.0}) {
    for (const double base : {0.0, 100.0}) {
      for (const double sign : {-1.0, 1.0}) {
        const auto value = static_cast<float>(sign * (base + f));
        const auto integers =
            Integers(std::vector<float>(kCount, value), scale, Rounding(6), {1, 0, ++unit});
        double sum = 0;
        double squares = 0;
        for (const int32_t integer : integers) {
          const double error = integer - static_cast<double>(value);
          ASSERT_LT(std::fabs(error), 1);
          sum += error;
          squares += error * error;
        }
        const double rest = std::fabs(value) - std::floor(std::fabs(value));
        const double variance = rest * (1 - rest);
        EXPECT_NEAR(sum / kCount, 0, 5 * std::sqrt(variance / kCount)) << value;
        // (error^2 - variance) has a standard deviation of |1 - 2 f| sqrt(f (1 - f)).
        EXPECT_NEAR(squares / kCount, variance,
                    5 * std::fabs(1 - 2 * rest) * std::sqrt(variance / kCount) + 1e-9)
            << value;
      }
    }
  }
}

TEST(Rounding, OfElementsThatShareAWordIsNearlyIndependent) {
  // Blocks of 2,048 share words sixteen at a time. Correlation of the errors of two such blocks
  // over 2^20 pairs: 2^-10 is one standard deviation; five of them, once in 1.7e6, for 120 pairs.
  constexpr size_t kBlock = NetMask::kBlockWords;
  constexpr size_t kGroups = 512;
  FixedPoint scale;
  scale.limit = 1024;
  for (const double f : {0.5, 0.3}) {
    const auto integers = Integers(std::vector<float>(kGroups * 16 * kBlock, static_cast<float>(f)),
                                   scale, Rounding(7), {1, 0, 0});
    for (size_t a = 0; a < 16; ++a) {
      for (size_t b = a + 1; b < 16; ++b) {
        double products = 0;
        for (size_t group = 0; group < kGroups; ++group) {
          const int32_t* of_a = integers.data() + (16 * group + a) * kBlock;
          const int32_t* of_b = integers.data() + (16 * group + b) * kBlock;
          for (size_t i = 0; i < kBlock; ++i) products += (of_a[i] - f) * (of_b[i] - f);
        }
        const double correlation = products / (kGroups * kBlock) / (f * (1 - f));
        EXPECT_LT(std::fabs(correlation), 5.0 / 1024) << a << " " << b;
      }
    }
  }
}

}  // namespace
}  // namespace pcmoe::border
