// pcmoe/train/party_model.h: what one party trains: its backbone, its experts, and their
// optimizers.
#pragma once

#include <filesystem>
#include <memory>

#include "pcmoe/model/backbone.h"
#include "pcmoe/model/expert_shard.h"
#include "pcmoe/optim/adamw.h"
#include "pcmoe/train/run_config.h"

namespace pcmoe::train {

/// Weights, gradients and optimizer state of one party. One thread.
class PartyModel {
 public:
  /// Starts from the checkpoint in config.model_name_or_path if there is one, else from
  /// `config.seed`; the same start for every party, since an expert's values depend on the seed and
  /// its name only.
  static absl::StatusOr<std::unique_ptr<PartyModel>> Create(const model::ModelConfig& model_config,
                                                            const RunConfig& config,
                                                            const model::Holdings& holdings);
  /// With a whole private backbone.
  static absl::StatusOr<std::unique_ptr<PartyModel>> Create(const model::ModelConfig& model_config,
                                                            const RunConfig& config,
                                                            const model::ExpertSelection& owned) {
    return Create(model_config, config, model::Holdings{.experts = owned});
  }

  /// Back to the start (a run whose parties have no common checkpoint).
  absl::Status Restart();

  model::Backbone& backbone() { return *backbone_; }
  model::ExpertShard& shard() { return *shard_; }
  const model::Backbone& backbone() const { return *backbone_; }
  const model::ExpertShard& shard() const { return *shard_; }
  const model::ModelConfig& config() const { return config_; }

  /// Sum of squares of the gradients here: owned units, and what is private when `with_private`.
  /// Not finite when a gradient is not.
  double GradientSumOfSquares(bool with_private) const;

  /// One optimizer step of every owned unit, and of what is private when `with_private`;
  /// `gradient_scale` is the global clip.
  void Step(double learning_rate, double gradient_scale, bool with_private);

  /// Writes weights and optimizer state into an existing folder; reads them back bit for bit.
  absl::Status Save(const std::filesystem::path& folder);
  absl::Status Load(const std::filesystem::path& folder);
  /// The weights alone; optimizer state stays as it is.
  absl::Status LoadWeights(const std::filesystem::path& folder);

 private:
  PartyModel(const model::ModelConfig& config, const RunConfig& run,
             const model::Holdings& holdings);
  void MakeOptimizers();
  void Refresh();
  struct NamedMoment;
  std::vector<NamedMoment> Moments();

  const model::ModelConfig config_;
  const RunConfig run_;
  const model::Holdings holdings_;
  std::unique_ptr<model::Backbone> backbone_;
  std::unique_ptr<model::ExpertShard> shard_;
  std::unique_ptr<optim::AdamW> private_optimizer_, unit_optimizer_;
};

}  // namespace pcmoe::train
