// pcmoe/audit/base_model.h: the attacker's copy of the model, and what it computes on public text:
// the inputs and gradients of the experts, token by token. Shape legend: T tokens, D hidden width,
// E experts, K experts per token, L layers.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "pcmoe/data/packing.h"
#include "pcmoe/model/backbone.h"
#include "pcmoe/model/expert_shard.h"
#include "pcmoe/model/local_experts.h"

namespace pcmoe::audit {

/// What the experts of a whole model would see of some sequences.
struct Capture {
  std::vector<at::Tensor> x_td;     ///< [L] float [T, D]: inputs of the experts.
  std::vector<at::Tensor> q_td;     ///< [L] float [T, D]: dL/d(output); empty without gradients.
  std::vector<at::Tensor> gate_te;  ///< [L] float [T, E]: gate weights, zero where not chosen.
  at::Tensor tokens_t;              ///< int64 [T]
  at::Tensor labels_t;              ///< int64 [T]: the next token of the sequence; -1: no loss.
  at::Tensor guess_t;  ///< int64 [T]: the model's own guess of the next token, given all before.
};

/// Sequences of packed tokens as one micro-batch; all of one length.
model::MicroBatch BatchOf(std::span<const data::Sequence> sequences);

/// Next token at every position of `sequences` (concatenated); -1 where there is no loss.
at::Tensor NextTokens(std::span<const data::Sequence> sequences);

/// A whole model at home. One thread.
class BaseModel {
 public:
  /// Loads a checkpoint folder. Errors name the folder.
  static absl::StatusOr<std::unique_ptr<BaseModel>> Load(const std::filesystem::path& folder);
  /// Takes weights as they are.
  BaseModel(model::ModelConfig config, model::BackboneParameters backbone,
            model::ExpertParameters experts);

  /// Runs the sequences in pieces of `at_once`; with gradients of the mean loss over a piece when
  /// asked. Weight gradients are thrown away.
  absl::StatusOr<Capture> Run(std::span<const data::Sequence> sequences, bool gradients,
                              int64_t at_once = 8);

  /// Runs forward and backward over the sequences as one step, with loss summed over tokens, and
  /// leaves the weight gradients in backbone() and shard() until the next call.
  absl::Status Gradients(std::span<const data::Sequence> sequences);

  /// Mean cross entropy of each sequence, nats a token.
  absl::StatusOr<std::vector<double>> Losses(std::span<const data::Sequence> sequences);

  /// The likeliest next `tokens` after the first `prompt` tokens of each sequence, one after
  /// another; int64 [sequences, tokens].
  absl::StatusOr<at::Tensor> Continue(std::span<const data::Sequence> sequences, int64_t prompt,
                                      int64_t tokens, int64_t at_once = 32);

  const model::ModelConfig& config() const { return config_; }
  model::Backbone& backbone() { return *backbone_; }
  model::ExpertShard& shard() { return *shard_; }

 private:
  const model::ModelConfig config_;
  std::unique_ptr<model::Backbone> backbone_;
  std::unique_ptr<model::ExpertShard> shard_;
  std::unique_ptr<model::LocalExperts> experts_;
};

}  // namespace pcmoe::audit
