// pcmoe/transport/wait.h: waiting on a condition variable until an absl::Time, infinity included.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <mutex>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace pcmoe::transport {

/// Waits for a notification or for `deadline`, whichever is first; may wake early, so loop. False
/// when the deadline has passed.
inline bool WaitUntil(std::condition_variable& condition, std::unique_lock<std::mutex>& lock,
                      absl::Time deadline) {
  const absl::Duration left = deadline - absl::Now();
  if (left <= absl::ZeroDuration()) return false;
  // Rounded up, or the last microseconds would be spun away; cut, or infinity would overflow.
  condition.wait_for(
      lock, absl::ToChronoMicroseconds(std::min(left, absl::Hours(1)) + absl::Microseconds(1)));
  return true;
}

}  // namespace pcmoe::transport
