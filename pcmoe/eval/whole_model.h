// pcmoe/eval/whole_model.h: a checkpoint folder with all its experts, at home, to evaluate with.
#pragma once

#include <filesystem>
#include <memory>

#include "pcmoe/eval/eval_set.h"
#include "pcmoe/model/backbone.h"
#include "pcmoe/model/expert_shard.h"
#include "pcmoe/model/local_experts.h"

namespace pcmoe::eval {

/// A model of a Hugging Face folder. One thread.
class WholeModel {
 public:
  /// Loads config and weights. Errors name the folder.
  static absl::StatusOr<std::unique_ptr<WholeModel>> Load(const std::filesystem::path& folder,
                                                          at::ScalarType dtype);

  /// Forward passes over the whole set.
  absl::StatusOr<EvalResult> Evaluate(const EvalSet& set);

  const model::ModelConfig& config() const { return config_; }

 private:
  WholeModel(model::ModelConfig config, model::BackboneParameters backbone,
             model::ExpertParameters experts, at::ScalarType dtype);

  const model::ModelConfig config_;
  std::unique_ptr<model::Backbone> backbone_;
  std::unique_ptr<model::ExpertShard> shard_;
  std::unique_ptr<model::LocalExperts> experts_;
};

}  // namespace pcmoe::eval
