// tests/federation/party_threads.h: a federation in one process: each party is a thread with its
// own model, experts and session over a given channel.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "pcmoe/exchange/shard/owned_experts.h"
#include "pcmoe/exchange/weights/weights_provider.h"
#include "pcmoe/federation/placement.h"
#include "pcmoe/train/federated_step.h"
#include "pcmoe/transport/channel.h"
#include "pcmoe/transport/test_parties.h"

namespace pcmoe::testing_federation {

/// What all parties of a test run do.
struct Recipe {
  model::ModelConfig config;
  train::RunConfig run;
  bool round_robin = false;
  int steps = 20;
  int parties = 4;
  absl::Duration peer_timeout = absl::Seconds(60);
  federation::Owners owners = {};  ///< Empty: round-robin.
  /// Exchange `weights` with these settings; nothing: exchange `rows`.
  std::optional<exchange::WeightsProvider::Options> weights = std::nullopt;
  exchange::BackboneModes modes = {};
  uint32_t data_seed = 0;
  int without_data = -1;    ///< The party that never has a batch.
  int64_t again_step = -1;  ///< Its first attempt is expected to fail, and is run again.
  /// How each party signs and checks mask keys; empty: UnsignedKeys.
  std::function<exchange::MaskKeySigner(int party)> signer = nullptr;
  /// The whole model is fetched after the last step, into Outcome::exported.
  bool export_at_end = false;
  std::string ledgers = {};  ///< A folder that takes a.jsonl, b.jsonl, ..; empty: no ledger.

  /// The step's number, rate, clip and balance loss.
  train::StepPlan PlanOf(int64_t step) const;
  /// Micro-batches that `party` brings to `step`: made from both numbers, uneven over parties; none
  /// when it is another party's turn.
  std::vector<model::MicroBatch> BatchesOf(int party, int64_t step) const;
};

/// A small model of `family` ("olmoe" or "qwen2_moe"), with an active clip and a balance loss.
Recipe SmallRecipe(const std::string& family);

/// By checkpoint name; copies.
using Weights = std::map<std::string, at::Tensor>;
Weights ExpertWeights(train::PartyModel& model);
Weights BackboneWeights(train::PartyModel& model);

/// What one party has in the end.
struct Outcome {
  absl::Status status;
  std::vector<double> losses;      ///< Mean over its own tokens; 0 when it had none.
  std::vector<double> grad_norms;  ///< Of the federation.
  Weights experts, backbone;       ///< Also after a failure.
  Weights exported;                ///< By checkpoint name.
};

/// Signs nothing and believes everything: identities have tests of their own.
exchange::MaskKeySigner UnsignedKeys();

/// One party's model, with the exchange of the recipe on top of `session`.
struct Party {
  std::unique_ptr<exchange::ExpertMap> map;
  std::unique_ptr<exchange::BackboneOwners> owners;
  std::unique_ptr<train::PartyModel> model;
  std::unique_ptr<exchange::OwnedExperts> owned;
  std::unique_ptr<model::ExpertProvider> experts;
  static Party Create(const Recipe& recipe, exchange::Session& session);
};

/// Runs every party in its own thread until its steps are done or it fails; a party that fails
/// tells the others, as a trainer does, and hangs up. Channels are by party.
std::vector<Outcome> RunParties(const Recipe& recipe,
                                std::vector<std::unique_ptr<transport::Channel>> channels);

/// Loopback channels, or gRPC with mutual TLS on ports of this machine.
std::vector<std::unique_ptr<transport::Channel>> LoopbackChannels(int parties);
std::vector<std::unique_ptr<transport::Channel>> GrpcChannels(const transport::TestParties& parties,
                                                              int count);

/// Names of the tensors that differ in any bit, or are on one side only.
std::vector<std::string> Differences(const Weights& a, const Weights& b);

}  // namespace pcmoe::testing_federation
