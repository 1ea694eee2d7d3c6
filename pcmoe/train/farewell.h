// pcmoe/train/farewell.h: how parties leave one another at the end: nobody before all are done.
#pragma once

#include <vector>

#include "pcmoe/exchange/session/session.h"

namespace pcmoe::train {

/// Serves the others' byes from its making on. One thread.
class Farewell {
 public:
  /// `session` outlives this.
  explicit Farewell(exchange::Session& session);

  /// Says that this party is done with `step`, and waits until all have said so. The second round
  /// says "I heard all of you": who hears it from one party needs no bye from the others.
  absl::Status Say(int64_t step, uint32_t attempt);

 private:
  exchange::Session& session_;
  std::vector<bool> said_;
};

}  // namespace pcmoe::train
