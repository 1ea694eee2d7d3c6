// pcmoe/federation/schedule.h: whose turn it is under the schedule round_robin.
#pragma once

#include <cstdint>

namespace pcmoe::federation {

/// The party whose batch is computed in `step` (from 0). Every round of `parties` steps takes each
/// party once, in an order drawn anew from `seed` for each round (arXiv 2506.02965). parties > 0.
int ActiveParty(uint64_t seed, uint64_t step, int parties);

}  // namespace pcmoe::federation
