// pcmoe/cli/backbone_modes.cc: see backbone_modes.h.
#include "pcmoe/cli/backbone_modes.h"

#include <string>

namespace pcmoe::cli {
namespace {

exchange::PartMode ModeOf(const std::string& name) {
  if (name == "aggregated") return exchange::PartMode::kAggregated;
  return name == "frozen" ? exchange::PartMode::kFrozen : exchange::PartMode::kPrivate;
}

}  // namespace

exchange::BackboneModes BackboneModesOf(const train::RunConfig& config) {
  return {.blocks = ModeOf(config.backbone),
          .embedding = ModeOf(config.embedding),
          .head = ModeOf(config.head)};
}

}  // namespace pcmoe::cli
