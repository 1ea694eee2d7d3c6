// pcmoe/audit/metrics.cc: see metrics.h.
#include "pcmoe/audit/metrics.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

namespace pcmoe::audit {
namespace {

// A percentile by linear interpolation between order statistics; `sorted` is not empty.
double Percentile(std::span<const double> sorted, double share) {
  const double place = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  const double rest = place - static_cast<double>(below);
  return sorted[below] * (1 - rest) + sorted[above] * rest;
}

double Mean(std::span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

}  // namespace

Estimate Bootstrap(double value,
                   const std::function<double(const std::function<size_t(size_t)>& pick)>& draw) {
  std::mt19937_64 random(1);
  const auto pick = [&random](size_t n) {
    return std::uniform_int_distribution<size_t>(0, n - 1)(random);
  };
  std::vector<double> values(kBootstrapRounds);
  for (double& one : values) one = draw(pick);
  std::sort(values.begin(), values.end());
  return {value, Percentile(values, 0.025), Percentile(values, 0.975)};
}

Estimate HitRate(std::span<const DocumentHits> documents) {
  const auto rate = [](int64_t hits, int64_t tries) {
    return tries == 0 ? 0.0 : static_cast<double>(hits) / static_cast<double>(tries);
  };
  int64_t hits = 0;
  int64_t tries = 0;
  for (const DocumentHits& document : documents) {
    hits += document.hits;
    tries += document.tries;
  }
  if (tries == 0) return {};
  return Bootstrap(rate(hits, tries), [&](const std::function<size_t(size_t)>& pick) {
    int64_t some_hits = 0;
    int64_t some_tries = 0;
    for (size_t i = 0; i < documents.size(); ++i) {
      const DocumentHits& document = documents[pick(documents.size())];
      some_hits += document.hits;
      some_tries += document.tries;
    }
    return rate(some_hits, some_tries);
  });
}

double Auc(std::span<const double> members, std::span<const double> others) {
  if (members.empty() || others.empty()) return 0.5;
  std::vector<double> sorted(others.begin(), others.end());
  std::sort(sorted.begin(), sorted.end());
  double wins = 0;
  for (const double score : members) {
    const auto [low, high] = std::equal_range(sorted.begin(), sorted.end(), score);
    wins += static_cast<double>(low - sorted.begin()) + 0.5 * static_cast<double>(high - low);
  }
  return wins / static_cast<double>(members.size()) / static_cast<double>(others.size());
}

double TprAtFpr(std::span<const double> members, std::span<const double> others, double fpr) {
  if (members.empty() || others.empty()) return 0;
  std::vector<double> sorted(others.begin(), others.end());
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  const auto allowed = static_cast<size_t>(std::floor(fpr * static_cast<double>(sorted.size())));
  // Scores strictly above this have at most `allowed` others above them.
  const double threshold = allowed < sorted.size() ? sorted[allowed] : -HUGE_VAL;
  const auto above =
      std::count_if(members.begin(), members.end(), [&](double s) { return s > threshold; });
  return static_cast<double>(above) / static_cast<double>(members.size());
}

Estimate AucEstimate(std::span<const double> members, std::span<const double> others) {
  if (members.empty() || others.empty()) return {0.5, 0, 1};
  const auto resampled = [](std::span<const double> from,
                            const std::function<size_t(size_t)>& pick) {
    std::vector<double> some(from.size());
    for (double& one : some) one = from[pick(from.size())];
    return some;
  };
  return Bootstrap(Auc(members, others), [&](const std::function<size_t(size_t)>& pick) {
    return Auc(resampled(members, pick), resampled(others, pick));
  });
}

Estimate AgainstNull(double auc, std::span<const double> null) {
  if (null.empty()) return {auc, 0, 1};
  std::vector<double> sorted(null.begin(), null.end());
  std::sort(sorted.begin(), sorted.end());
  return {0.5 + auc - Mean(null), 0.5 + auc - Percentile(sorted, 0.975),
          0.5 + auc - Percentile(sorted, 0.025)};
}

double TwoSidedP(double auc, std::span<const double> null) {
  const double mean = null.empty() ? 0.5 : Mean(null);
  const double off = std::abs(auc - mean);
  const auto as_far = std::count_if(null.begin(), null.end(),
                                    [&](double one) { return std::abs(one - mean) >= off; });
  return static_cast<double>(as_far + 1) / static_cast<double>(null.size() + 1);
}

}  // namespace pcmoe::audit
