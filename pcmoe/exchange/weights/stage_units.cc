// pcmoe/exchange/weights/stage_units.cc: see stage_units.h.
#include "pcmoe/exchange/weights/stage_units.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "pcmoe/border/int8_rows.h"

namespace pcmoe::exchange {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kExpertGroups = 2;  // gate_up, down

size_t Aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

UnitTensor Unit(int64_t expert, int entry, std::vector<int64_t> shape, at::ScalarType dtype) {
  UnitTensor unit{
      .expert = expert, .entry = entry, .shape = std::move(shape), .dtype = dtype, .elements = 1};
  for (const int64_t size : unit.shape) unit.elements *= size;
  unit.first_group = expert < 0 ? 0 : static_cast<size_t>(entry);
  unit.parts = {unit.elements};
  return unit;
}

}  // namespace

StageUnits::StageUnits(const model::ModelConfig& config, const ExpertMap& experts,
                       const BackboneOwners& backbone, at::ScalarType dtype, bool int8)
    : config_(config),
      parties_(experts.parties()),
      int8_(int8),
      owned_sp_(static_cast<size_t>(config.num_layers) + 2,
                std::vector<OwnedUnits>(static_cast<size_t>(experts.parties()))) {
  for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
    AddExperts(experts, layer, dtype);
    AddBackbone(static_cast<int>(layer), backbone.OfBlock(layer), dtype);
  }
  AddBackbone(EmbeddingStage(), backbone.OfEmbedding(), dtype);
  AddBackbone(HeadStage(), backbone.OfHead(), dtype);
  for (const std::vector<OwnedUnits>& owned_p : owned_sp_) {
    size_t groups = 0;
    for (const OwnedUnits& owned : owned_p) {
      for (const UnitTensor& unit : owned.tensors)
        groups = std::max(groups, unit.first_group + unit.parts.size());
    }
    groups_s_.push_back(groups);
  }
}

void StageUnits::AddExperts(const ExpertMap& experts, int64_t layer, at::ScalarType dtype) {
  if (!config_.sparse_layers[static_cast<size_t>(layer)]) return;
  for (int64_t expert = 0; expert < config_.num_experts; ++expert) {
    const int owner = experts.OwnerOf(layer, expert);
    OwnedUnits& owned = owned_sp_[static_cast<size_t>(layer)][static_cast<size_t>(owner)];
    owned.tensors.push_back(Unit(expert, 0, {2 * config_.expert_size, config_.hidden_size}, dtype));
    owned.expert_elements += owned.tensors.back().elements;
    owned.tensors.push_back(Unit(expert, 1, {config_.hidden_size, config_.expert_size}, dtype));
    owned.expert_elements += owned.tensors.back().elements;
  }
}

void StageUnits::AddBackbone(int stage, int owner, at::ScalarType dtype) {
  if (owner < 0) return;
  OwnedUnits& owned = owned_sp_[static_cast<size_t>(stage)][static_cast<size_t>(owner)];
  size_t group = kExpertGroups;
  const auto add = [&](std::vector<int64_t> shape, at::ScalarType type,
                       std::vector<int64_t> parts = {}) {
    const auto entry =
        static_cast<int>(std::count_if(owned.tensors.begin(), owned.tensors.end(),
                                       [](const UnitTensor& unit) { return unit.expert < 0; }));
    owned.tensors.push_back(Unit(-1, entry, std::move(shape), type));
    UnitTensor& unit = owned.tensors.back();
    if (!parts.empty()) unit.parts = std::move(parts);
    unit.first_group = group;
    group += unit.parts.size();
    owned.backbone_elements += owned.tensors.back().elements;
  };
  const std::vector<int64_t> table{config_.vocab_size, config_.hidden_size};
  if (stage == EmbeddingStage()) {
    add(table, dtype);
  } else if (stage == HeadStage()) {
    add({config_.hidden_size}, at::kFloat);
    if (!config_.tie_word_embeddings) add(table, dtype);
  } else {
    model::BlockWeights shapes_only;
    for (const model::BlockEntry& entry : BlockEntries(config_, stage, shapes_only)) {
      add(entry.shape, entry.fp32 ? at::kFloat : dtype, entry.parts);
    }
  }
}

size_t StageUnits::BytesOf(const UnitTensor& unit) const {
  if (AsInt8(unit)) return border::Int8RowsBytes(unit.shape[0], unit.shape[1]);
  return static_cast<size_t>(unit.elements) * c10::elementSize(unit.dtype);
}

bool StageUnits::HasUnits(int stage) const {
  for (int owner = 0; owner < parties_; ++owner) {
    if (!Of(stage, owner).empty()) return true;
  }
  return false;
}

std::vector<at::Tensor*> StageUnits::BackboneTensors(StageTensors& tensors, int stage) const {
  if (stage == EmbeddingStage()) return {&tensors.embedding_vd};
  if (stage == HeadStage()) return {&tensors.final_norm_d, &tensors.head_vd};
  std::vector<at::Tensor*> result;
  for (const model::BlockEntry& entry : BlockEntries(config_, stage, tensors.block)) {
    result.push_back(entry.tensor);
  }
  return result;
}

at::Tensor& StageUnits::TensorOf(StageTensors& tensors, int stage, const UnitTensor& unit) const {
  if (unit.expert < 0) return *BackboneTensors(tensors, stage)[static_cast<size_t>(unit.entry)];
  auto& list = unit.entry == 0 ? tensors.experts.gate_up_fd : tensors.experts.down_df;
  return list[static_cast<size_t>(unit.expert)];
}

StageTensors StageUnits::Frame(int stage) const {
  StageTensors tensors;
  if (stage < EmbeddingStage() && config_.sparse_layers[static_cast<size_t>(stage)]) {
    tensors.experts.gate_up_fd.resize(static_cast<size_t>(config_.num_experts));
    tensors.experts.down_df.resize(static_cast<size_t>(config_.num_experts));
  }
  return tensors;
}

size_t StageUnits::WeightBytes(int stage, int owner) const {
  size_t bytes = kAlignment;
  for (const UnitTensor& unit : Of(stage, owner).tensors) bytes += Aligned(BytesOf(unit));
  return bytes;
}

wire::Buffer StageUnits::EncodeWeights(int stage, int owner, uint64_t version,
                                       StageTensors& own) const {
  wire::Buffer payload = wire::Buffer::Allocate(WeightBytes(stage, owner));
  uint8_t* to = payload.writable().data();
  std::memcpy(to, &version, sizeof(version));
  to += kAlignment;
  for (const UnitTensor& unit : Of(stage, owner).tensors) {
    const at::Tensor& tensor = TensorOf(own, stage, unit);
    if (AsInt8(unit)) {
      border::EncodeInt8Rows(tensor, to);
    } else {
      std::memcpy(to, tensor.const_data_ptr(), BytesOf(unit));
    }
    to += Aligned(BytesOf(unit));
  }
  return payload;
}

bool StageUnits::ViewWeights(int stage, int owner, uint64_t version, const wire::Buffer& payload,
                             StageTensors& tensors) const {
  uint64_t read = 0;
  if (payload.size() != WeightBytes(stage, owner)) return false;
  std::memcpy(&read, payload.bytes().data(), sizeof(read));
  if (read != version) return false;
  // Nobody writes to them: a product only reads its weights.
  auto* from = const_cast<uint8_t*>(payload.bytes().data()) + kAlignment;
  for (const UnitTensor& unit : Of(stage, owner).tensors) {
    at::Tensor& tensor = TensorOf(tensors, stage, unit);
    if (AsInt8(unit)) {
      tensor = at::empty(unit.shape, at::TensorOptions(unit.dtype));
      border::DecodeInt8Rows({from, BytesOf(unit)}, tensor);
    } else {
      tensor = at::from_blob(
          from, unit.shape, [keep = payload.owner()](void*) {}, at::TensorOptions(unit.dtype));
    }
    from += Aligned(BytesOf(unit));
  }
  return true;
}

void StageUnits::ViewGradients(int stage, int owner, const at::Tensor& flat,
                               StageTensors& tensors) const {
  int64_t begin = 0;
  for (const UnitTensor& unit : Of(stage, owner).tensors) {
    TensorOf(tensors, stage, unit) = flat.narrow(0, begin, unit.elements).view(unit.shape);
    begin += unit.elements;
  }
}

}  // namespace pcmoe::exchange
