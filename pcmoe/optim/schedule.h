// pcmoe/optim/schedule.h: learning rate by step, with transformers' names and formulas.
#pragma once

#include <cstdint>
#include <string_view>

#include "pcmoe/base/status.h"

namespace pcmoe::optim {

enum class SchedulerType { kConstant, kLinear, kCosine };

/// "constant", "linear" or "cosine"; INVALID_ARGUMENT names what there is.
absl::StatusOr<SchedulerType> ParseSchedulerType(std::string_view name);

/// The factor on the peak learning rate for optimizer step `step` (from 0): rises linearly over
/// `warmup_steps`, then stays, falls linearly to 0 at `max_steps`, or follows half a cosine to 0.
double LearningRateFactor(SchedulerType type, int64_t step, int64_t warmup_steps,
                          int64_t max_steps);

}  // namespace pcmoe::optim
