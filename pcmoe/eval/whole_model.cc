// pcmoe/eval/whole_model.cc: see whole_model.h.
#include "pcmoe/eval/whole_model.h"

#include "pcmoe/model/parameters.h"

namespace pcmoe::eval {

WholeModel::WholeModel(model::ModelConfig config, model::BackboneParameters backbone,
                       model::ExpertParameters experts, at::ScalarType dtype)
    : config_(std::move(config)) {
  backbone_ = std::make_unique<model::Backbone>(
      config_, std::move(backbone),
      model::Backbone::Options{
          .compute_dtype = dtype, .freeze_embedding = true, .freeze_head = true});
  shard_ = std::make_unique<model::ExpertShard>(
      config_, std::move(experts), model::ExpertShard::Options{.compute_dtype = dtype});
  experts_ = std::make_unique<model::LocalExperts>(*shard_);
}

absl::StatusOr<std::unique_ptr<WholeModel>> WholeModel::Load(const std::filesystem::path& folder,
                                                             at::ScalarType dtype) {
  PCMOE_ASSIGN_OR_RETURN(model::ModelConfig config, model::LoadConfig(folder));
  model::BackboneParameters backbone = model::EmptyBackbone(config);
  model::ExpertParameters experts = model::EmptyExperts(config, model::AllExperts(config));
  PCMOE_RETURN_IF_ERROR(model::LoadCheckpoint(folder, config, backbone, experts));
  return std::unique_ptr<WholeModel>(
      new WholeModel(std::move(config), std::move(backbone), std::move(experts), dtype));
}

absl::StatusOr<EvalResult> WholeModel::Evaluate(const EvalSet& set) {
  EvalResult result;
  std::vector<std::vector<double>> answers;
  for (size_t m = 0; m < set.batches().size(); ++m) {
    PCMOE_RETURN_IF_ERROR(experts_->BeginPass({.micro_batches_p = {1}, .training = false}));
    PCMOE_ASSIGN_OR_RETURN(model::PassResult pass,
                           backbone_->Evaluate(std::span(set.batches()).subspan(m, 1), *experts_, 0,
                                               set.QueriesOf(m, 1)));
    PCMOE_RETURN_IF_ERROR(experts_->FinishPass());
    result.Add(pass, answers);
  }
  result.accuracy = set.Score(answers);
  return result;
}

}  // namespace pcmoe::eval
