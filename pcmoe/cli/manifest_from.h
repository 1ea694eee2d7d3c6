// pcmoe/cli/manifest_from.h: a federation's manifest from the config file that describes it.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "pcmoe/federation/manifest.h"
#include "pcmoe/train/run_config.h"

namespace pcmoe::cli {

/// Fills everything but the id: digests of the model's files, placement, shared training settings.
/// INVALID_ARGUMENT when the config or a file it names cannot be used.
absl::StatusOr<federation::Manifest> ManifestFrom(train::RunConfig config,
                                                  std::vector<federation::PartyEntry> parties);

}  // namespace pcmoe::cli
