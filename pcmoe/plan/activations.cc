// pcmoe/plan/activations.cc: what a step keeps at its fullest moments, tensor by tensor, as the
// layer-major step makes them (model/backbone.cc, model/block.cc, model/expert_shard.cc,
// exchange/rows). Shape legend: T tokens of a micro-batch, M micro-batches, D hidden width, F
// expert width, N (token, expert) pairs of a micro-batch, L layers.
#include <algorithm>

#include "pcmoe/plan/plan.h"

namespace pcmoe::plan {
namespace {

constexpr double kLossChunk = 1024;  // model::Backbone::Options::loss_chunk

// Bytes of one micro-batch in one layer.
struct Parts {
  double row = 0;             // a [T, D] tensor of the compute dtype
  double block = 0;           // model::BlockState without x
  double routing = 0;         // experts_tk and weights_tk, which outlive the block's state
  double plan = 0;            // model::PairPlan of N pairs
  double hidden = 0;          // [N, 2F], kept for backward
  double activated = 0;       // [N, F]
  double pair_rows = 0;       // [N, D]
  double block_backward = 0;  // temporaries of one micro-batch
};

Parts PartsOf(const model::ModelConfig& config, const Recipe& recipe, int64_t parties,
              bool sparse) {
  const auto b = static_cast<double>(recipe.compute_bytes());
  const auto t = static_cast<double>(recipe.tokens());
  const auto h = static_cast<double>(config.QueryWidth());
  const auto g = static_cast<double>(config.KeyWidth());
  const auto k = static_cast<double>(config.experts_per_token);
  const auto e = static_cast<double>(config.num_experts);
  Parts parts;
  parts.row = t * static_cast<double>(config.hidden_size) * b;
  double attention = t * b * ((h + 2 * g) + (h + g) + h) +           // q|k|v, rotated q|k, output
                     4 * t * static_cast<double>(config.num_heads);  // log-sum-exp
  if (config.num_heads != config.num_kv_heads) attention += 2 * t * h * b;  // k and v repeated
  if (config.clip_qkv > 0) attention += t * g * b;
  if (config.qk_norm == model::ModelConfig::QkNorm::kFull) attention += 8 * t;
  if (config.qk_norm == model::ModelConfig::QkNorm::kPerHead) {
    attention += 4 * t * static_cast<double>(config.num_heads + config.num_kv_heads);
  }
  parts.block = 3 * parts.row + 8 * t + attention;  // normed, residual, h; both norms' 1/rms
  parts.block_backward = t * b * (3 * h + 2 * (h + 2 * g)) + 3 * parts.row;
  if (!sparse) {
    parts.block += t * b * 2 * static_cast<double>(config.dense_size);
    return parts;
  }
  parts.block += 4 * t * e;  // probabilities
  if (config.HasSharedExpert()) {
    parts.block += t * b * (2 * static_cast<double>(config.shared_expert_size) + 1) + parts.row;
  }
  const double pairs = t * k * (parties > 1 ? recipe.imbalance : 1.0);
  parts.routing = 12 * t * k;
  parts.plan = 20 * pairs + 4 * t;
  parts.hidden = pairs * 2 * static_cast<double>(config.expert_size) * b;
  parts.activated = parts.hidden / 2;
  parts.pair_rows = pairs * static_cast<double>(config.hidden_size) * b;
  return parts;
}

// What a layer keeps from forward to backward, for one micro-batch.
double Kept(const Parts& parts, const Recipe& recipe) {
  const double experts = parts.routing + parts.plan;
  if (!recipe.recompute) return parts.row + parts.block + experts + parts.hidden;
  // x, and with experts their input h.
  return parts.row + experts + (parts.hidden > 0 ? parts.row : 0);
}

}  // namespace

double ActivationBytes(const model::ModelConfig& config, const Recipe& recipe, int64_t parties) {
  const auto m = static_cast<double>(recipe.micro_batches);
  const auto t = static_cast<double>(recipe.tokens());
  double below = 0;  // kept by the layers under this one, all micro-batches
  double most = 0;
  const auto moment = [&most](double bytes) { most = std::max(most, bytes); };
  Parts top;
  for (const bool sparse : config.sparse_layers) {
    const Parts parts = PartsOf(config, recipe, parties, sparse);
    top = parts;
    const double kept = Kept(parts, recipe);
    const double whole = parts.row + parts.block + parts.routing;
    // The layer's forward ends: the whole state of every micro-batch, and the next layer's x; the
    // last micro-batch has an expert's products too.
    moment(below + m * (whole + parts.plan + (recipe.recompute ? 0 : parts.hidden) + parts.row) +
           parts.hidden + parts.activated + 2 * parts.pair_rows);
    const double grown = recipe.recompute ? parts.hidden + parts.activated : parts.activated;
    // The experts' backward of the last micro-batch.
    moment(below + m * (kept + grown + parts.row) + (parties == 1 ? m * parts.row : 0) +
           2 * parts.pair_rows + parts.activated);
    // The last segment's backward: its own state is there in whole, the others' are gone.
    const double ended = parts.hidden + parts.activated + parts.plan + parts.row;
    moment(below + m * (ended + 2 * parts.row) + whole + parts.block_backward);
    // Weight gradients: x and dz of every pair gathered, all micro-batches (and parties) at once.
    // Peers that are ahead have gone through the next layer's experts by then.
    const double ahead = grown * static_cast<double>(parties - 1) / static_cast<double>(parties);
    if (sparse) moment(below + m * (ended + 2 * parts.row + 2 * parts.pair_rows + ahead));
    below += m * kept;
  }
  const double chunk = std::min(kLossChunk, t) * static_cast<double>(config.vocab_size) *
                       static_cast<double>(recipe.compute_bytes());
  moment(below + m * top.row + 3 * top.row + chunk);
  // Evaluation keeps one layer's states of the micro-batches that it takes at a time.
  const auto eval = static_cast<double>(recipe.eval_micro_batches);
  for (const bool sparse : config.sparse_layers) {
    const Parts parts = PartsOf(config, recipe, parties, sparse);
    moment(eval * (2 * parts.row + parts.block + parts.routing) + parts.hidden + parts.activated +
           2 * parts.pair_rows);
  }
  if (eval > 0) moment(eval * top.row + 2 * top.row + chunk);
  return most;
}

}  // namespace pcmoe::plan
