// pcmoe/plan/plan.h: what a run will need, before it starts: bytes a party, traffic a token and a
// step. Arithmetic alone; bench/figures/plan_error.py holds it against real runs. Shape legend: T
// tokens of a micro-batch, D hidden width, F expert width, E experts, K experts a token.
#pragma once

#include <cstdint>

#include "pcmoe/model/config.h"
#include "pcmoe/model/parameters.h"

namespace pcmoe::plan {

/// How a run computes. Plain data; the names are those of the config file.
struct Recipe {
  bool bf16 = false;       ///< precision = "bf16": compute in bfloat16, weights and moments fp32.
  bool recompute = false;  ///< gradient_checkpointing
  int64_t batch = 4;       ///< per_device_train_batch_size
  int64_t sequence = 256;  ///< sequence_length
  int64_t micro_batches = 1;  ///< gradient_accumulation_steps
  /// (token, expert) pairs of the busiest party against an even share; a router is never quite
  /// even, and an untrained one of eight experts gave up to 1.6. Does not matter to a central run.
  double imbalance = 1.25;
  int64_t eval_micro_batches = 8;  ///< Micro-batches evaluated at a time; 0: no evaluation.
  bool keep_fetched = false;       ///< keep_fetched_weights; for the exchange `weights`.
  bool int8_on_wire = false;       ///< weights_on_wire = "int8"; for the exchange `weights`.

  int64_t tokens() const { return batch * sequence; }  ///< T
  int64_t compute_bytes() const { return bf16 ? 2 : 4; }
};

/// Bytes that one process needs.
struct Memory {
  /// Weights, gradients, moments, compute copies, rope table; for the whole run. What result.json
  /// calls states_bytes has `transient` in it too.
  double states = 0;
  /// Exchange `weights`: the most bytes at a time of others' weights, of gradients on their way to
  /// them, and of sums that come in.
  double transient = 0;
  double activations = 0;  ///< The most that a step or an evaluation adds at one time.
  /// In queues, not tensors of the allocator: peers' rows that are kept for backward; or weights
  /// that came ahead of their stage, and shares that wait to leave.
  double messages = 0;
  /// What result.json calls peak_allocated_bytes (which lacks the fetched weights of `transient`).
  double peak_allocated() const { return states + transient + activations; }
};

/// Bytes on the wire, payload alone, for the exchange `rows`.
struct Traffic {
  double remote_owners = 0;  ///< Expected distinct other parties with an expert of a token (D_r).
  /// All layers, forward and backward, what a token's home sends and gets back: 4 D_r D b a layer.
  double bytes_per_token = 0;
  /// Of all tokens of one party. Each of alike parties also answers for others' tokens, so this is
  /// what it sends, and as much comes in.
  double bytes_per_step = 0;
};

/// The table of rotary embeddings, whole at every party.
double RopeBytes(const model::ModelConfig& config, const Recipe& recipe);

/// States of a process with the whole backbone and `expert_share` (0 to 1) of the routed experts.
double StatesBytes(const model::ModelConfig& config, const Recipe& recipe, double expert_share);

/// Bytes a parameter: (experts and most of the backbone) weight, gradient, two moments, compute
/// copy.
double BytesPerParameter(const Recipe& recipe);

/// Exchange `rows`: the busiest one of `parties` alike parties, experts dealt out evenly; 1: a
/// central run.
Memory PredictMemory(const model::ModelConfig& config, const Recipe& recipe, int64_t parties);

/// The probability that a token has at least one of its K experts among `owned` of the E, if all
/// sets of K were alike.
double ShareOfRows(int64_t experts, int64_t experts_per_token, int64_t owned);

Traffic PredictTraffic(const model::ModelConfig& config, const Recipe& recipe, int64_t parties);

/// The most bytes of activations; part of PredictMemory, by itself for tests.
double ActivationBytes(const model::ModelConfig& config, const Recipe& recipe, int64_t parties);

}  // namespace pcmoe::plan
