// pcmoe/train/party_model.cc: see party_model.h.
#include "pcmoe/train/party_model.h"

#include <ATen/ops/zeros.h>

#include <map>

#include "pcmoe/optim/norm.h"
#include "pcmoe/tensor/safetensors.h"

namespace pcmoe::train {
namespace {

namespace fs = std::filesystem;

bool HasWeights(const fs::path& folder) {
  return fs::exists(folder / "model.safetensors") ||
         fs::exists(folder / "model.safetensors.index.json");
}

}  // namespace

// A moment tensor under the name it has in optimizer.safetensors.
struct PartyModel::NamedMoment {
  std::string name;
  at::Tensor tensor;
};

PartyModel::PartyModel(const model::ModelConfig& config, const RunConfig& run,
                       const model::Holdings& holdings)
    : config_(config), run_(run), holdings_(holdings) {
  const at::ScalarType dtype = run.precision == "bf16" ? at::kBFloat16 : at::kFloat;
  backbone_ = std::make_unique<model::Backbone>(
      config_, model::EmptyBackbone(config_, holdings_),
      model::Backbone::Options{.compute_dtype = dtype,
                               .recompute = run.gradient_checkpointing,
                               .isolate_documents = run.isolate_documents,
                               .freeze_embedding = holdings_.embedding == model::Part::kFrozen,
                               .freeze_head = holdings_.head == model::Part::kFrozen,
                               .freeze_blocks = holdings_.Block(0) == model::Part::kFrozen});
  shard_ = std::make_unique<model::ExpertShard>(
      config_, model::EmptyExperts(config_, holdings_.experts),
      model::ExpertShard::Options{.compute_dtype = dtype, .recompute = run.gradient_checkpointing});
}

absl::StatusOr<std::unique_ptr<PartyModel>> PartyModel::Create(
    const model::ModelConfig& model_config, const RunConfig& config,
    const model::Holdings& holdings) {
  std::unique_ptr<PartyModel> party(new PartyModel(model_config, config, holdings));
  PCMOE_RETURN_IF_ERROR(party->Restart());
  return party;
}

void PartyModel::MakeOptimizers() {
  const optim::AdamWOptions options{.beta1 = run_.adam_beta1,
                                    .beta2 = run_.adam_beta2,
                                    .eps = run_.adam_epsilon,
                                    .weight_decay = run_.weight_decay};
  std::map<std::string, at::Tensor> gradients;
  for (const auto& named : model::NamedBackbone(config_, backbone_->gradients())) {
    gradients[named.name] = named.tensor;
  }
  std::vector<optim::Trainable> privates;
  std::vector<optim::Trainable> units;
  for (const auto& named : model::NamedBackbone(config_, backbone_->weights())) {
    const auto gradient = gradients.find(named.name);
    if (gradient == gradients.end()) continue;  // frozen
    const bool unit = model::PartOf(holdings_, named.name) == model::Part::kUnit;
    const bool head = named.name == "lm_head.weight" || named.name == "model.norm.weight";
    (unit ? units : privates)
        .push_back({named.tensor, gradient->second, named.tensor.dim() >= 2,
                    unit || head || run_.private_lr_scale < 0 ? 1.0 : run_.private_lr_scale});
  }
  const double expert_scale = run_.expert_lr_scale < 0 ? 1.0 : run_.expert_lr_scale;
  for (size_t l = 0; l < shard_->weights().size(); ++l) {
    const model::ExpertLayerParameters& layer = shard_->weights()[l];
    if (layer.expert_ids.empty()) continue;
    units.push_back({layer.gate_up_efd, shard_->gradients()[l].gate_up_efd, true, expert_scale});
    units.push_back({layer.down_edf, shard_->gradients()[l].down_edf, true, expert_scale});
  }
  private_optimizer_ = std::make_unique<optim::AdamW>(std::move(privates), options);
  unit_optimizer_ = std::make_unique<optim::AdamW>(std::move(units), options);
}

void PartyModel::Refresh() {
  backbone_->RefreshComputeWeights();
  shard_->RefreshComputeWeights();
  backbone_->ResetGradients();
  shard_->Reset();
}

absl::Status PartyModel::Restart() {
  const fs::path base = run_.model_name_or_path;
  if (fs::is_directory(base) && HasWeights(base)) {
    PCMOE_RETURN_IF_ERROR(model::LoadCheckpoint(base, config_, backbone_->mutable_weights(),
                                                shard_->mutable_weights()));
  } else {
    model::Initialise(config_, static_cast<uint64_t>(run_.seed), backbone_->mutable_weights());
    model::Initialise(config_, static_cast<uint64_t>(run_.seed), shard_->mutable_weights());
  }
  MakeOptimizers();
  Refresh();
  return absl::OkStatus();
}

double PartyModel::GradientSumOfSquares(bool with_private) const {
  double sum = 0;
  if (with_private) {
    for (const optim::Trainable& t : private_optimizer_->trainables()) {
      sum += optim::SumOfSquares(t.gradient);
    }
  }
  for (const optim::Trainable& t : unit_optimizer_->trainables()) {
    sum += optim::SumOfSquares(t.gradient);
  }
  return sum;
}

void PartyModel::Step(double learning_rate, double gradient_scale, bool with_private) {
  if (with_private) private_optimizer_->Step(learning_rate, gradient_scale);
  unit_optimizer_->Step(learning_rate, gradient_scale);
  Refresh();
}

std::vector<PartyModel::NamedMoment> PartyModel::Moments() {
  std::vector<NamedMoment> moments;
  const auto add = [&moments](const std::string& prefix, optim::AdamW& optimizer) {
    for (size_t i = 0; i < optimizer.trainables().size(); ++i) {
      moments.push_back({absl::StrCat(prefix, ".", i, ".exp_avg"), optimizer.exp_avg()[i]});
      moments.push_back({absl::StrCat(prefix, ".", i, ".exp_avg_sq"), optimizer.exp_avg_sq()[i]});
    }
  };
  add("private", *private_optimizer_);
  add("units", *unit_optimizer_);
  return moments;
}

absl::Status PartyModel::Save(const fs::path& folder) {
  PCMOE_RETURN_IF_ERROR(
      model::SaveCheckpoint(folder, config_, backbone_->weights(), shard_->weights()));
  std::vector<tensor::NamedTensor> tensors;
  for (NamedMoment& moment : Moments()) tensors.push_back({moment.name, moment.tensor});
  at::Tensor steps = at::zeros({2}, at::kLong);
  steps.mutable_data_ptr<int64_t>()[0] = private_optimizer_->step();
  steps.mutable_data_ptr<int64_t>()[1] = unit_optimizer_->step();
  tensors.push_back({"steps", steps});
  return tensor::WriteSafetensors(folder / "optimizer.safetensors", tensors).status();
}

absl::Status PartyModel::Load(const fs::path& folder) {
  PCMOE_RETURN_IF_ERROR(model::LoadCheckpoint(folder, config_, backbone_->mutable_weights(),
                                              shard_->mutable_weights()));
  PCMOE_ASSIGN_OR_RETURN(const tensor::SafetensorsReader reader,
                         tensor::SafetensorsReader::Open(folder / "optimizer.safetensors"));
  for (NamedMoment& moment : Moments()) {
    PCMOE_RETURN_IF_ERROR(reader.Read(moment.name, moment.tensor));
  }
  at::Tensor steps = at::zeros({2}, at::kLong);
  PCMOE_RETURN_IF_ERROR(reader.Read("steps", steps));
  private_optimizer_->set_step(steps.const_data_ptr<int64_t>()[0]);
  unit_optimizer_->set_step(steps.const_data_ptr<int64_t>()[1]);
  Refresh();
  return absl::OkStatus();
}

absl::Status PartyModel::LoadWeights(const fs::path& folder) {
  PCMOE_RETURN_IF_ERROR(model::LoadCheckpoint(folder, config_, backbone_->mutable_weights(),
                                              shard_->mutable_weights()));
  Refresh();
  return absl::OkStatus();
}

}  // namespace pcmoe::train
