// pcmoe/audit/metrics_test.cc: scores against slow references.
#include "pcmoe/audit/metrics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

namespace pcmoe::audit {
namespace {

double SlowAuc(const std::vector<double>& members, const std::vector<double>& others) {
  double wins = 0;
  for (const double m : members) {
    for (const double o : others) wins += m > o ? 1.0 : m == o ? 0.5 : 0.0;
  }
  return wins / static_cast<double>(members.size() * others.size());
}

double SlowTpr(const std::vector<double>& members, const std::vector<double>& others, double fpr) {
  double best = 0;
  std::vector<double> thresholds = others;
  thresholds.push_back(-HUGE_VAL);
  for (const double threshold : thresholds) {
    const auto above = [&](const std::vector<double>& scores) {
      return static_cast<double>(std::count_if(scores.begin(), scores.end(),
                                               [&](double s) { return s > threshold; })) /
             static_cast<double>(scores.size());
    };
    if (above(others) <= fpr) best = std::max(best, above(members));
  }
  return best;
}

TEST(MetricsTest, AucAndTprEqualTheSlowOnesWithTies) {
  std::mt19937 random(3);
  for (int round = 0; round < 50; ++round) {
    std::vector<double> members(1 + random() % 40), others(1 + random() % 40);
    for (double& score : members) score = static_cast<double>(random() % 12) + 1;
    for (double& score : others) score = static_cast<double>(random() % 12);
    EXPECT_DOUBLE_EQ(Auc(members, others), SlowAuc(members, others));
    for (const double fpr : {0.0, 0.01, 0.1, 0.5, 1.0}) {
      EXPECT_DOUBLE_EQ(TprAtFpr(members, others, fpr), SlowTpr(members, others, fpr)) << fpr;
    }
  }
  EXPECT_DOUBLE_EQ(Auc({}, {}), 0.5);
}

// Coverage of the interval: the truth is inside in about 95 of 100 draws.
TEST(MetricsTest, IntervalsHoldTheTruthAsOftenAsTheySay) {
  std::mt19937 random(5);
  int inside = 0;
  constexpr int kRounds = 100;
  for (int round = 0; round < kRounds; ++round) {
    std::vector<DocumentHits> documents(60);
    for (DocumentHits& document : documents) {
      document.tries = 50;
      document.hits = std::binomial_distribution<int64_t>(50, 0.3)(random);
    }
    const Estimate rate = HitRate(documents);
    EXPECT_LE(rate.low, rate.value);
    EXPECT_GE(rate.high, rate.value);
    inside += rate.low <= 0.3 && 0.3 <= rate.high ? 1 : 0;
  }
  EXPECT_GE(inside, 85);  // P(fewer of 100 at 0.93) < 0.003
  EXPECT_LT(inside, kRounds);
}

TEST(MetricsTest, AnAucIntervalOfEqualScoresHoldsOneHalf) {
  std::mt19937 random(9);
  std::vector<double> members(80), others(80);
  for (double& score : members) score = std::normal_distribution<>()(random);
  for (double& score : others) score = std::normal_distribution<>()(random);
  const Estimate auc = AucEstimate(members, others);
  EXPECT_LT(auc.low, 0.5);
  EXPECT_GT(auc.high, 0.5);
  EXPECT_LT(auc.high - auc.low, 0.25);
}

TEST(MetricsTest, AgainstNullHoldsAHalfExactlyWithinItsMiddle) {
  std::vector<double> null;
  for (int i = 0; i <= 1000; ++i) null.push_back(0.3 + 0.0004 * i);  // 0.3 to 0.7
  const auto holds = [&](double value) {
    const Estimate of = AgainstNull(value, null);
    EXPECT_DOUBLE_EQ(of.value, value);
    EXPECT_NEAR(of.high - of.low, 0.38, 1e-9);
    return of.low <= 0.5 && 0.5 <= of.high;
  };
  EXPECT_FALSE(holds(0.309));
  EXPECT_TRUE(holds(0.311));
  EXPECT_TRUE(holds(0.689));
  EXPECT_FALSE(holds(0.691));
  EXPECT_NEAR(TwoSidedP(0.5, null), 1.0, 1e-9);
  EXPECT_NEAR(TwoSidedP(0.31, null), 0.05, 0.004);
  EXPECT_NEAR(TwoSidedP(0.69, null), 0.05, 0.004);
  EXPECT_NEAR(TwoSidedP(0.9, null), 1.0 / 1002, 1e-9);
  EXPECT_DOUBLE_EQ(AgainstNull(0.5, {}).low, 0);
  EXPECT_DOUBLE_EQ(AgainstNull(0.5, {}).high, 1);
}

}  // namespace
}  // namespace pcmoe::audit
