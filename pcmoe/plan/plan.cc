// pcmoe/plan/plan.cc: see plan.h; states.
#include "pcmoe/plan/plan.h"

#include <algorithm>

namespace pcmoe::plan {
namespace {

// Norms stay fp32 and the embedding is read in fp32: they have no compute copy.
double WithoutCopy(const model::ModelConfig& config) {
  const auto layers = static_cast<double>(config.num_layers);
  double norms = (2 * layers + 1) * static_cast<double>(config.hidden_size);
  if (config.qk_norm == model::ModelConfig::QkNorm::kFull) {
    norms += layers * static_cast<double>(config.QueryWidth() + config.KeyWidth());
  } else if (config.qk_norm == model::ModelConfig::QkNorm::kPerHead) {
    norms += layers * 2 * static_cast<double>(config.head_dim);
  }
  // A tied head is the embedding's copy.
  const double embedding =
      config.tie_word_embeddings ? 0 : static_cast<double>(config.vocab_size * config.hidden_size);
  return norms + embedding;
}

}  // namespace

double BytesPerParameter(const Recipe& recipe) { return recipe.bf16 ? 18 : 16; }

double RopeBytes(const model::ModelConfig& config, const Recipe& recipe) {
  // Cosines and sines, fp32, head_dim / 2 each.
  return 4.0 * static_cast<double>(std::max(config.max_position_embeddings, recipe.sequence) *
                                   config.head_dim);
}

double StatesBytes(const model::ModelConfig& config, const Recipe& recipe, double expert_share) {
  const model::ParameterCount count = model::CountParameters(config);
  const double parameters =
      static_cast<double>(count.backbone) + expert_share * static_cast<double>(count.experts);
  const double without_copy = recipe.bf16 ? 2 * WithoutCopy(config) : 0;
  return BytesPerParameter(recipe) * parameters - without_copy + RopeBytes(config, recipe);
}

Memory PredictMemory(const model::ModelConfig& config, const Recipe& recipe, int64_t parties) {
  const double share = 1.0 / static_cast<double>(parties);
  Memory memory;
  memory.states = StatesBytes(config, recipe, share);
  memory.activations = ActivationBytes(config, recipe, parties);
  if (parties > 1) {
    const auto sparse = static_cast<double>(
        std::count(config.sparse_layers.begin(), config.sparse_layers.end(), true));
    const double rows = PredictTraffic(config, recipe, parties).remote_owners *
                        static_cast<double>(recipe.tokens() * recipe.micro_batches);
    memory.messages = recipe.imbalance * sparse * rows *
                      static_cast<double>(config.hidden_size * recipe.compute_bytes());
  }
  return memory;
}

}  // namespace pcmoe::plan
