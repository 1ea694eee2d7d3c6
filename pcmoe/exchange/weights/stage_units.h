// pcmoe/exchange/weights/stage_units.h: what each owner has in each stage of a pass, tensor by
// tensor: the layout of fetched weights and of gradients on their way home. Shape legend: E experts
// of a layer, F expert width, D hidden width, V vocabulary.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "pcmoe/exchange/shard/backbone_owners.h"
#include "pcmoe/model/backbone_source.h"
#include "pcmoe/model/stages.h"
#include "pcmoe/wire/message.h"

namespace pcmoe::exchange {

using model::StageTensors;

/// One tensor of a unit.
struct UnitTensor {
  int64_t expert = -1;  ///< Global id; -1: of the backbone, and `entry` counts its tensors.
  int entry = 0;        ///< Of an expert: 0 gate_up, 1 down.
  std::vector<int64_t> shape;
  at::ScalarType dtype = at::kFloat;  ///< As a weight; gradients are fp32.
  int64_t elements = 0;
  /// Gradients share a scale by group: all gate_up of a stage, all down, and each weight of the
  /// backbone by itself (a query's gradients start thousands of times smaller than a value's).
  /// Never one expert by itself: its scale would tell how much it is used. `parts`: elements of the
  /// groups first_group, first_group + 1, .. in this tensor, one after another.
  size_t first_group = 0;
  std::vector<int64_t> parts;
};

/// What one owner has in one stage: its experts by ascending id, then the backbone's tensors.
struct OwnedUnits {
  std::vector<UnitTensor> tensors;
  int64_t expert_elements = 0;
  int64_t backbone_elements = 0;
  int64_t elements() const { return expert_elements + backbone_elements; }
  bool empty() const { return tensors.empty(); }
};

/// Stages are the layers, then EmbeddingStage() and HeadStage(). Immutable.
class StageUnits {
 public:
  /// `dtype`: of the weights as they are used (norms are fp32 always). With `int8`, matrices travel
  /// as int8 with a scale per row.
  StageUnits(const model::ModelConfig& config, const ExpertMap& experts,
             const BackboneOwners& backbone, at::ScalarType dtype, bool int8);

  int parties() const { return parties_; }
  int stages() const { return static_cast<int>(owned_sp_.size()); }
  int EmbeddingStage() const { return stages() - 2; }
  int HeadStage() const { return stages() - 1; }
  const OwnedUnits& Of(int stage, int owner) const {
    return owned_sp_[static_cast<size_t>(stage)][static_cast<size_t>(owner)];
  }
  bool HasUnits(int stage) const;
  /// Groups of the stage's tensors (all of UnitTensor's are below it), whoever owns them.
  size_t Groups(int stage) const { return groups_s_[static_cast<size_t>(stage)]; }

  /// The tensor of `tensors` that `unit` describes.
  at::Tensor& TensorOf(StageTensors& tensors, int stage, const UnitTensor& unit) const;
  /// An empty frame for the tensors of a stage.
  StageTensors Frame(int stage) const;

  /// Payload of kUnitWeights: u64 version, zeros up to 64 bytes, then every tensor from a multiple
  /// of 64 bytes on: its numbers, or the Int8Rows of a matrix.
  wire::Buffer EncodeWeights(int stage, int owner, uint64_t version, StageTensors& own) const;
  size_t WeightBytes(int stage, int owner) const;
  /// Puts views of `payload` (which stays alive with them), or new tensors where it is int8, into
  /// `tensors`; false when its length is not WeightBytes or its version is another.
  bool ViewWeights(int stage, int owner, uint64_t version, const wire::Buffer& payload,
                   StageTensors& tensors) const;
  /// Puts views of `flat` (fp32, elements() long) into `tensors`.
  void ViewGradients(int stage, int owner, const at::Tensor& flat, StageTensors& tensors) const;

 private:
  bool AsInt8(const UnitTensor& unit) const { return int8_ && unit.shape.size() == 2; }
  size_t BytesOf(const UnitTensor& unit) const;
  std::vector<at::Tensor*> BackboneTensors(StageTensors& tensors, int stage) const;
  void AddExperts(const ExpertMap& experts, int64_t layer, at::ScalarType dtype);
  void AddBackbone(int stage, int owner, at::ScalarType dtype);

  const model::ModelConfig config_;
  const int parties_;
  const bool int8_;
  std::vector<std::vector<OwnedUnits>> owned_sp_;  // [stage][party]
  std::vector<size_t> groups_s_;
};

}  // namespace pcmoe::exchange
