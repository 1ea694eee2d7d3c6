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

  int64_t tokens() const { return batch * sequence; }  ///< T
  int64_t compute_bytes() const { return bf16 ? 2 : 4; }
};

/// Bytes that one process needs.
struct Memory {
  double states =
      0;  ///< Weights, gradients, moments, compute copies, rope table; for the whole run.
  double activations = 0;  ///< The most that a step or an evaluation adds at one time.
  double messages = 0;  ///< Peers' rows that are kept for backward; not tensors of the allocator.
  /// What the run's result.json will call peak_allocated_bytes.
  double peak_allocated() const { return states + activations; }
};

/// Bytes on the wire, payload alone, for the exchange `rows`.
struct Traffic {
  double remote_owners = 0;  ///< Expected distinct other parties with an expert of a token (D_r).
  double bytes_per_token =
      0;  ///< All layers, forward and backward, both directions, 4 D_r D b a layer.
  double bytes_per_step = 0;  ///< Of all tokens of one party: what it sends and gets back.
};

/// States of a process with the whole backbone and `expert_share` (0 to 1) of the routed experts.
double StatesBytes(const model::ModelConfig& config, const Recipe& recipe, double expert_share);

/// Bytes a parameter: (experts and most of the backbone) weight, gradient, two moments, compute
/// copy.
double BytesPerParameter(const Recipe& recipe);

/// The busiest one of `parties` alike parties, experts dealt out evenly; 1: a central run.
Memory PredictMemory(const model::ModelConfig& config, const Recipe& recipe, int64_t parties);

/// The probability that a token has at least one of its K experts among `owned` of the E, if all
/// sets of K were alike.
double ShareOfRows(int64_t experts, int64_t experts_per_token, int64_t owned);

Traffic PredictTraffic(const model::ModelConfig& config, const Recipe& recipe, int64_t parties);

/// The most bytes of activations; part of PredictMemory, by itself for tests.
double ActivationBytes(const model::ModelConfig& config, const Recipe& recipe, int64_t parties);

}  // namespace pcmoe::plan
