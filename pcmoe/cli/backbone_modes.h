// pcmoe/cli/backbone_modes.h: how a run's settings say the backbone is trained.
#pragma once

#include "pcmoe/exchange/shard/backbone_owners.h"
#include "pcmoe/train/run_config.h"

namespace pcmoe::cli {

/// Of a config in which ResolveBackbone has replaced "auto".
exchange::BackboneModes BackboneModesOf(const train::RunConfig& config);

}  // namespace pcmoe::cli
