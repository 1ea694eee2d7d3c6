// pcmoe/plan/weights_plan.cc: see weights_plan.h; memory and bytes on the wire.
#include "pcmoe/plan/weights_plan.h"

#include <algorithm>

#include "pcmoe/federation/placement.h"

namespace pcmoe::plan {
namespace {

using exchange::PartMode;

at::ScalarType ComputeDtype(const Recipe& recipe) {
  return recipe.bf16 ? at::kBFloat16 : at::kFloat;
}

// Elements of a layer's block that have a copy in the compute dtype when it is not fp32.
double CopiedOfBlock(const model::ModelConfig& config, int64_t layer) {
  model::BlockWeights shapes_only;
  double copied = 0;
  for (const model::BlockEntry& entry : model::BlockEntries(config, layer, shapes_only)) {
    double elements = entry.fp32 ? 0 : 1;
    for (const int64_t size : entry.shape) elements *= static_cast<double>(size);
    copied += elements;
  }
  return copied;
}

}  // namespace

absl::StatusOr<WeightsPlan> WeightsPlan::Create(const model::ModelConfig& config,
                                                const Recipe& recipe,
                                                const exchange::BackboneModes& modes,
                                                int64_t parties) {
  const auto sparse = std::count(config.sparse_layers.begin(), config.sparse_layers.end(), true);
  PCMOE_ASSIGN_OR_RETURN(const federation::Placement placement,
                         federation::Placement::Create({}, static_cast<size_t>(sparse),
                                                       static_cast<size_t>(config.num_experts),
                                                       static_cast<size_t>(parties)));
  return WeightsPlan(config, recipe, modes, exchange::ExpertMap(config, placement));
}

WeightsPlan::WeightsPlan(const model::ModelConfig& config, const Recipe& recipe,
                         const exchange::BackboneModes& modes, const exchange::ExpertMap& map)
    : config_(config),
      recipe_(recipe),
      owners_(config, map, modes),
      units_(config, map, owners_, ComputeDtype(recipe), recipe.int8_on_wire) {}

// A part of the backbone at `party`, `copied` of whose elements have a compute copy in bf16.
double WeightsPlan::PartBytes(int stage, double elements, double copied, int party) const {
  PartMode mode = owners_.modes().blocks;
  int owner = stage < Layers() ? owners_.OfBlock(stage) : -1;
  if (stage == units_.EmbeddingStage()) {
    mode = owners_.modes().embedding;
    owner = owners_.OfEmbedding();
  } else if (stage == units_.HeadStage()) {
    mode = owners_.modes().head;
    owner = owners_.OfHead();
  }
  const double copies = recipe_.bf16 ? 2 * copied : 0;
  if (mode == PartMode::kFrozen) return 4 * elements + copies;
  if (mode == PartMode::kAggregated && owner != party) return 0;
  return 16 * elements + copies;  // weight, gradient, two moments
}

double WeightsPlan::StatesOf(int party) const {
  const model::BackboneSizes sizes = model::SizesOfBackbone(config_);
  double bytes = RopeBytes(config_, recipe_);
  // A tied head is the embedding's copy.
  const auto embedding = static_cast<double>(sizes.embedding);
  bytes += PartBytes(units_.EmbeddingStage(), embedding,
                     config_.tie_word_embeddings ? embedding : 0, party);
  const auto head = static_cast<double>(sizes.head);
  bytes +=
      PartBytes(units_.HeadStage(), head, head - static_cast<double>(config_.hidden_size), party);
  for (int layer = 0; layer < Layers(); ++layer) {
    const auto block = static_cast<double>(sizes.blocks_l[static_cast<size_t>(layer)]);
    bytes +=
        PartBytes(layer, block, CopiedOfBlock(config_, layer), party) +
        BytesPerParameter(recipe_) * static_cast<double>(units_.Of(layer, party).expert_elements);
  }
  return bytes;
}

// Bytes of the units of all others in a stage, as they are used.
double WeightsPlan::HeldWeights(int stage, int party) const {
  double bytes = 0;
  for (int owner = 0; owner < parties(); ++owner) {
    if (owner == party) continue;
    for (const exchange::UnitTensor& unit : units_.Of(stage, owner).tensors) {
      bytes += static_cast<double>(unit.elements) *
               (unit.dtype == at::kFloat ? 4.0 : static_cast<double>(recipe_.compute_bytes()));
    }
  }
  return bytes;
}

// Likewise, as they come.
double WeightsPlan::WireWeights(int stage, int party) const {
  double bytes = 0;
  for (int owner = 0; owner < parties(); ++owner) {
    if (owner == party || units_.Of(stage, owner).empty()) continue;
    bytes += static_cast<double>(units_.WeightBytes(stage, owner));
  }
  return bytes;
}

double WeightsPlan::OwnElements(int stage, int party) const {
  return static_cast<double>(units_.Of(stage, party).elements());
}

double WeightsPlan::RemoteElements(int stage, int party) const {
  double elements = 0;
  for (int owner = 0; owner < parties(); ++owner) {
    if (owner != party) elements += OwnElements(stage, owner);
  }
  return elements;
}

double WeightsPlan::TransientOf(int party) const {
  if (parties() == 1) return 0;
  double kept = 0;
  for (int layer = 0; recipe_.keep_fetched && layer < Layers(); ++layer) {
    kept += HeldWeights(layer, party);
  }
  // Backward: the head, the layers descending, the embedding.
  std::vector<int> order{units_.HeadStage()};
  for (int layer = Layers() - 1; layer >= 0; --layer) order.push_back(layer);
  order.push_back(units_.EmbeddingStage());
  double most = 0;
  double before = 0;  // gradients and sums of the stage before
  for (const int stage : order) {
    const double gradients = 4 * (RemoteElements(stage, party) + OwnElements(stage, party));
    const bool layer = stage < Layers();
    const double weights = layer && recipe_.keep_fetched ? 0 : HeldWeights(stage, party);
    // Of the embedding's backward only the gradient is there.
    const double here = stage == units_.EmbeddingStage() ? 0 : weights;
    most = std::max(most, kept + here + gradients + before);
    before = gradients;
  }
  return most;
}

double WeightsPlan::MessagesOf(int party) const {
  double most = 0;
  for (int stage = 0; parties() > 1 && stage < units_.stages(); ++stage) {
    most = std::max(most, WireWeights(stage, party) + 4 * RemoteElements(stage, party));
  }
  return most;
}

Memory WeightsPlan::Largest() const {
  Memory largest;
  for (int party = 0; party < parties(); ++party) {
    const Memory memory{
        .states = StatesOf(party), .transient = TransientOf(party), .messages = MessagesOf(party)};
    if (memory.states + memory.transient > largest.states + largest.transient) largest = memory;
  }
  // A party's own tokens go through all experts, as in a central run.
  largest.activations = ActivationBytes(config_, recipe_, 1);
  return largest;
}

// One fetch.
Flow WeightsPlan::WeightsOf(int stage, int party) const {
  Flow flow{.received = WireWeights(stage, party)};
  if (!units_.Of(stage, party).empty()) {
    flow.sent =
        static_cast<double>(parties() - 1) * static_cast<double>(units_.WeightBytes(stage, party));
  }
  return flow;
}

Flow WeightsPlan::StepOf(int party) const {
  Flow step;
  for (int stage = 0; stage < units_.stages(); ++stage) {
    const double fetches = stage < Layers() && !recipe_.keep_fetched ? 2 : 1;
    const Flow weights = WeightsOf(stage, party);
    step.sent += fetches * weights.sent + 4 * RemoteElements(stage, party);
    step.received += fetches * weights.received +
                     4 * static_cast<double>(parties() - 1) * OwnElements(stage, party);
  }
  return step;
}

Flow WeightsPlan::SweepOf(int party) const {
  Flow sweep;
  for (int stage = 0; stage < units_.stages(); ++stage) {
    const Flow weights = WeightsOf(stage, party);
    sweep.sent += weights.sent;
    sweep.received += weights.received;
  }
  return sweep;
}

double WeightsPlan::BusiestStep() const {
  double most = 0;
  for (int party = 0; party < parties(); ++party) {
    const Flow step = StepOf(party);
    most = std::max({most, step.sent, step.received});
  }
  return most;
}

double WeightsPlan::BusiestSweep() const {
  double most = 0;
  for (int party = 0; party < parties(); ++party) {
    const Flow sweep = SweepOf(party);
    most = std::max({most, sweep.sent, sweep.received});
  }
  return most;
}

double RowsOfAnExpert(const model::ModelConfig& config, const Recipe& recipe, int64_t parties) {
  return static_cast<double>(parties * recipe.tokens() * recipe.micro_batches *
                             config.experts_per_token) /
         static_cast<double>(std::max<int64_t>(1, config.num_experts));
}

}  // namespace pcmoe::plan
