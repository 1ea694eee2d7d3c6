// pcmoe/transport/free_ports.h: ports of this machine that nobody listens on.
#pragma once

#include <cstdint>
#include <vector>

#include "pcmoe/base/status.h"

namespace pcmoe::transport {

/// `count` different ports that could be bound just now. From `first` up without gaps when it is
/// not 0 (UNAVAILABLE names the one that is taken); else from below the range that the system gives
/// to outgoing connections, so that none is taken between this call and the listening.
absl::StatusOr<std::vector<uint16_t>> FreePorts(int count, uint16_t first = 0);

}  // namespace pcmoe::transport
