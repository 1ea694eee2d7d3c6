// pcmoe/audit/metrics.h: how attacks are scored: shares with bootstrap intervals, AUC, TPR.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace pcmoe::audit {

/// A figure with its 95 % interval.
struct Estimate {
  double value = 0;
  double low = 0;
  double high = 0;
};

/// Hits among the tries that belong to one document (here: one packed sequence).
struct DocumentHits {
  int64_t hits = 0;
  int64_t tries = 0;
};

/// Resamples of a bootstrap; its seed is fixed, so a report does not change from run to run.
inline constexpr int kBootstrapRounds = 1000;

/// Share of hits over all tries; the interval from resampling whole documents (percentiles 2.5 and
/// 97.5). All zero without tries.
Estimate HitRate(std::span<const DocumentHits> documents);

/// Area under the ROC curve: the probability that a member's score is above a non-member's, ties
/// count half. 0.5 when one side is empty.
double Auc(std::span<const double> members, std::span<const double> others);

/// Share of members above the threshold that at most `fpr` of the others are above.
double TprAtFpr(std::span<const double> members, std::span<const double> others, double fpr);

/// AUC; the interval from resampling members and others.
Estimate AucEstimate(std::span<const double> members, std::span<const double> others);

/// An AUC less what the same attack gets where there is nothing to find: `null`, AUCs of such
/// views. The value is the AUC moved by as much as the mean of `null` is from 0.5; the interval
/// holds 0.5 exactly when the AUC is within percentiles 2.5 and 97.5 of them, however the tries of
/// one view depend on each other; its width is theirs. {auc, 0, 1} without any.
Estimate AgainstNull(double auc, std::span<const double> null);

/// Share of `null` that is as far from their mean as the AUC or farther; it counts as one of them.
double TwoSidedP(double auc, std::span<const double> null);

/// Percentiles 2.5 and 97.5 of `draw` called kBootstrapRounds times with a resampling function:
/// pick(n) is uniform in [0, n).
Estimate Bootstrap(double value,
                   const std::function<double(const std::function<size_t(size_t)>& pick)>& draw);

}  // namespace pcmoe::audit
