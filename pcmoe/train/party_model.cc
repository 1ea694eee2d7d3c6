// pcmoe/train/party_model.cc: see party_model.h.
#include "pcmoe/train/party_model.h"

#include <ATen/ops/zeros.h>

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
                       const model::ExpertSelection& owned)
    : config_(config), run_(run), owned_(owned) {
  const at::ScalarType dtype = run.precision == "bf16" ? at::kBFloat16 : at::kFloat;
  backbone_ = std::make_unique<model::Backbone>(
      config_, model::EmptyBackbone(config_),
      model::Backbone::Options{.compute_dtype = dtype,
                               .recompute = run.gradient_checkpointing,
                               .isolate_documents = run.isolate_documents});
  shard_ = std::make_unique<model::ExpertShard>(
      config_, model::EmptyExperts(config_, owned_),
      model::ExpertShard::Options{.compute_dtype = dtype, .recompute = run.gradient_checkpointing});
}

absl::StatusOr<std::unique_ptr<PartyModel>> PartyModel::Create(
    const model::ModelConfig& model_config, const RunConfig& config,
    const model::ExpertSelection& owned) {
  std::unique_ptr<PartyModel> party(new PartyModel(model_config, config, owned));
  PCMOE_RETURN_IF_ERROR(party->Restart());
  return party;
}

void PartyModel::MakeOptimizers() {
  const optim::AdamWOptions options{.beta1 = run_.adam_beta1,
                                    .beta2 = run_.adam_beta2,
                                    .eps = run_.adam_epsilon,
                                    .weight_decay = run_.weight_decay};
  const auto weights = model::NamedBackbone(config_, backbone_->weights());
  const auto gradients = model::NamedBackbone(config_, backbone_->gradients());
  std::vector<optim::Trainable> backbone;
  for (size_t i = 0; i < weights.size(); ++i) {
    backbone.push_back({weights[i].tensor, gradients[i].tensor, weights[i].tensor.dim() >= 2});
  }
  std::vector<optim::Trainable> experts;
  for (size_t l = 0; l < shard_->weights().size(); ++l) {
    const model::ExpertLayerParameters& layer = shard_->weights()[l];
    if (layer.expert_ids.empty()) continue;
    experts.push_back({layer.gate_up_efd, shard_->gradients()[l].gate_up_efd, true});
    experts.push_back({layer.down_edf, shard_->gradients()[l].down_edf, true});
  }
  backbone_optimizer_ = std::make_unique<optim::AdamW>(std::move(backbone), options);
  expert_optimizer_ = std::make_unique<optim::AdamW>(std::move(experts), options);
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

double PartyModel::GradientSumOfSquares(bool with_backbone) const {
  double sum = 0;
  if (with_backbone) {
    for (const optim::Trainable& t : backbone_optimizer_->trainables()) {
      sum += optim::SumOfSquares(t.gradient);
    }
  }
  for (const optim::Trainable& t : expert_optimizer_->trainables()) {
    sum += optim::SumOfSquares(t.gradient);
  }
  return sum;
}

void PartyModel::Step(double learning_rate, double gradient_scale, bool with_backbone) {
  if (with_backbone) backbone_optimizer_->Step(learning_rate, gradient_scale);
  expert_optimizer_->Step(learning_rate, gradient_scale);
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
  add("backbone", *backbone_optimizer_);
  add("experts", *expert_optimizer_);
  return moments;
}

absl::Status PartyModel::Save(const fs::path& folder) {
  PCMOE_RETURN_IF_ERROR(
      model::SaveCheckpoint(folder, config_, backbone_->weights(), shard_->weights()));
  std::vector<tensor::NamedTensor> tensors;
  for (NamedMoment& moment : Moments()) tensors.push_back({moment.name, moment.tensor});
  at::Tensor steps = at::zeros({2}, at::kLong);
  steps.mutable_data_ptr<int64_t>()[0] = backbone_optimizer_->step();
  steps.mutable_data_ptr<int64_t>()[1] = expert_optimizer_->step();
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
  backbone_optimizer_->set_step(steps.const_data_ptr<int64_t>()[0]);
  expert_optimizer_->set_step(steps.const_data_ptr<int64_t>()[1]);
  Refresh();
  return absl::OkStatus();
}

}  // namespace pcmoe::train
