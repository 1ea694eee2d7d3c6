// pcmoe/border/uniformity_test.cc: what leaves cannot be told from random bytes, though what is
// under the masks is as far from random as can be.
//
// Fixed keys, so a test gives the same statistics always. For a right implementation and random
// keys each of the statistics would exceed its bound (4.9 standard deviations, two-sided) with a
// probability of about 1e-6: 12 of them, so 1.2e-5 for all.
#include <array>
#include <bit>
#include <cmath>
#include <cstdio>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "pcmoe/border/fixed_point.h"
#include "pcmoe/border/test_federation.h"

namespace pcmoe::border {
namespace {

constexpr double kBound = 4.9;
constexpr size_t kUnitWords = 100'000;

// Chi-square over bytes, serial correlation of neighbouring bytes, and number of ones; each as
// standard deviations from what uniform bytes give.
class Statistics {
 public:
  void Add(const std::vector<uint32_t>& words) {
    for (const uint32_t word : words) {
      ones_ += std::popcount(word);
      for (int i = 0; i < 4; ++i) {
        const auto byte = static_cast<uint8_t>(word >> (8 * i));
        ++counts_[byte];
        products_ += static_cast<uint64_t>(byte) * last_;
        last_ = byte;
        ++bytes_;
      }
    }
  }
  double bytes() const { return static_cast<double>(bytes_); }
  double ChiSquare() const {  // 255 degrees of freedom, near enough to normal
    double sum = 0;
    for (const uint64_t count : counts_) {
      const double difference = static_cast<double>(count) - bytes() / 256;
      sum += difference * difference / (bytes() / 256);
    }
    return (sum - 255) / std::sqrt(2 * 255.0);
  }
  double SerialCorrelation() const {
    double sum = 0;
    double squares = 0;
    for (size_t byte = 0; byte < counts_.size(); ++byte) {
      sum += static_cast<double>(byte) * static_cast<double>(counts_[byte]);
      squares += static_cast<double>(byte * byte) * static_cast<double>(counts_[byte]);
    }
    const double mean = sum / bytes();
    const double variance = squares / bytes() - mean * mean;
    return (static_cast<double>(products_) / bytes() - mean * mean) / variance * std::sqrt(bytes());
  }
  double Monobit() const {
    return (static_cast<double>(ones_) - 4 * bytes()) / std::sqrt(2 * bytes());
  }
  void Check(const char* what) const {
    std::printf("%s, %.3g bytes: chi-square %+.2f, serial correlation %+.2f, monobit %+.2f sigma\n",
                what, bytes(), ChiSquare(), SerialCorrelation(), Monobit());
    EXPECT_GE(bytes(), 1e8);
    EXPECT_LT(std::fabs(ChiSquare()), kBound);
    EXPECT_LT(std::fabs(SerialCorrelation()), kBound);
    EXPECT_LT(std::fabs(Monobit()), kBound);
  }

 private:
  std::array<uint64_t, 256> counts_{};
  uint64_t products_ = 0;
  uint64_t ones_ = 0;
  uint64_t bytes_ = 0;
  uint8_t last_ = 0;
};

// The share of a gradient whose values are all equal, at one unit.
std::vector<uint32_t> Share(PairwiseMasks& masks, uint32_t unit, const std::vector<int>& peers) {
  static const std::vector<float> values(kUnitWords, 0.25F);
  static const auto scale = FixedPoint::For(std::vector<uint8_t>{ExponentOf(values)}, 3);
  static const auto rounding = RoundingKey::Derive({}, {});
  std::vector<uint32_t> share(kUnitWords);
  const auto status = MaskedFixedPoint(values.data(), values.size(), *scale, *rounding,
                                       {1, 0, unit}, peers, masks, share.data());
  EXPECT_TRUE(status.ok()) << status;
  return share;
}

TEST(Uniformity, StatisticsFindWhatIsNotUniform) {
  auto masks = MakeFederation(4);
  Statistics broken;
  for (uint32_t unit = 0; unit < 20; ++unit) {
    auto words = Share(masks[0], unit, {1, 2});
    for (size_t i = 0; i < words.size(); i += 50) words[i] &= ~1U;  // one bit in 1,600
    broken.Add(words);
  }
  EXPECT_GT(std::fabs(broken.ChiSquare()), kBound);
  EXPECT_GT(std::fabs(broken.Monobit()), kBound);
}

TEST(Uniformity, OfOneShare) {
  auto masks = MakeFederation(4);
  Statistics statistics;
  for (uint32_t unit = 0; statistics.bytes() < 1e8; ++unit) {
    statistics.Add(Share(masks[0], unit, {1, 2}));
  }
  statistics.Check("one share");
}

TEST(Uniformity, OfAnyTwoSharesOfThree) {
  // n = 4: parties 0, 1 and 2 contribute to what 3 owns. Any n - 2 = 2 shares are uniform together:
  // side by side, and in the combinations in which a mask of the two would cancel or show.
  Statistics together;
  Statistics sum;
  Statistics difference;
  auto masks = MakeFederation(4);
  for (uint32_t unit = 0; together.bytes() < 1e8 || sum.bytes() < 1e8; ++unit) {
    const int a = static_cast<int>(unit % 3);
    const int b = static_cast<int>((unit + 1) % 3);
    const auto of_a = Share(masks[a], unit, PeersOf(a, 4, 3));
    const auto of_b = Share(masks[b], unit, PeersOf(b, 4, 3));
    std::vector<uint32_t> side_by_side;
    std::vector<uint32_t> added(kUnitWords);
    std::vector<uint32_t> subtracted(kUnitWords);
    side_by_side.reserve(2 * kUnitWords);
    for (size_t i = 0; i < kUnitWords; ++i) {
      side_by_side.push_back(of_a[i]);
      side_by_side.push_back(of_b[i]);
      added[i] = of_a[i] + of_b[i];
      subtracted[i] = of_a[i] - of_b[i];
    }
    together.Add(side_by_side);
    sum.Add(added);
    difference.Add(subtracted);
  }
  together.Check("two shares of three");
  sum.Check("their sum");
  difference.Check("their difference");
}

}  // namespace
}  // namespace pcmoe::border
