// pcmoe/optim/schedule.cc: see schedule.h.
#include "pcmoe/optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>

namespace pcmoe::optim {

absl::StatusOr<SchedulerType> ParseSchedulerType(std::string_view name) {
  if (name == "constant") return SchedulerType::kConstant;
  if (name == "linear") return SchedulerType::kLinear;
  if (name == "cosine") return SchedulerType::kCosine;
  return absl::InvalidArgumentError(
      absl::StrCat("lr_scheduler_type is \"", std::string(name),
                   "\"; write \"constant\", \"linear\" or \"cosine\""));
}

double LearningRateFactor(SchedulerType type, int64_t step, int64_t warmup_steps,
                          int64_t max_steps) {
  if (step < warmup_steps) {
    return static_cast<double>(step) / static_cast<double>(std::max<int64_t>(1, warmup_steps));
  }
  const auto length = static_cast<double>(std::max<int64_t>(1, max_steps - warmup_steps));
  const double progress = static_cast<double>(step - warmup_steps) / length;
  switch (type) {
    case SchedulerType::kLinear:
      return std::max(0.0, 1.0 - progress);
    case SchedulerType::kCosine:
      return std::max(0.0, 0.5 * (1.0 + std::cos(std::numbers::pi * std::min(1.0, progress))));
    case SchedulerType::kConstant:
      break;
  }
  return 1.0;
}

}  // namespace pcmoe::optim
