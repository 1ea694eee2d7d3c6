// tests/federation/party_threads.cc: see party_threads.h.
#include "party_threads.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <cstring>
#include <latch>
#include <random>
#include <set>
#include <thread>

#include "absl/time/clock.h"
#include "pcmoe/exchange/rows/rows_provider.h"
#include "pcmoe/exchange/weights/model_fetch.h"
#include "pcmoe/federation/schedule.h"
#include "pcmoe/transport/loopback.h"

namespace pcmoe::testing_federation {
namespace {

constexpr int64_t kSequences = 2;
constexpr int64_t kLength = 16;
constexpr uint64_t kScheduleSeed = 3;

std::string ConfigJson(const std::string& family) {
  const std::string common =
      R"("vocab_size":64,"hidden_size":32,"num_hidden_layers":3,"num_attention_heads":4,
         "num_key_value_heads":2,"num_experts_per_tok":2,"num_experts":8,"hidden_act":"silu",
         "max_position_embeddings":64,"initializer_range":0.1,"tie_word_embeddings":false,
         "output_router_logits":true,"router_aux_loss_coef":0.01,"rms_norm_eps":1e-05,)";
  if (family == "qwen2_moe") {
    return absl::StrCat(R"({"model_type":"qwen2_moe",)", common,
                        R"("intermediate_size":48,"moe_intermediate_size":24,
                           "shared_expert_intermediate_size":40,"decoder_sparse_step":1,
                           "mlp_only_layers":[1],"norm_topk_prob":true})");
  }
  return absl::StrCat(R"({"model_type":"olmoe",)", common, R"("intermediate_size":24})");
}

Weights Copies(const std::vector<model::NamedTensor>& tensors) {
  Weights copies;
  for (const model::NamedTensor& named : tensors) copies[named.name] = named.tensor.clone();
  return copies;
}

std::vector<std::string> Names(int parties) {
  std::vector<std::string> names;
  for (int party = 0; party < parties; ++party)
    names.emplace_back(1, static_cast<char>('a' + party));
  return names;
}

absl::Status RunSteps(const Recipe& recipe, exchange::Session& session,
                      model::ExpertProvider& experts, train::PartyModel& model, Outcome& outcome) {
  std::set<wire::PartyIndex> up;
  const absl::Time deadline = absl::Now() + absl::Seconds(60);
  while (static_cast<int>(up.size()) + 1 < recipe.parties) {
    if (absl::Now() > deadline) return absl::DeadlineExceededError("the parties never met");
    std::vector<wire::PartyIndex> came_up;
    session.WaitForAnything(deadline, came_up);
    up.insert(came_up.begin(), came_up.end());
  }
  uint32_t attempt = 1;
  for (int64_t step = 0; step < recipe.steps; ++step) {
    train::StepPlan plan = recipe.PlanOf(step);
    plan.attempt = attempt;
    const auto batches = recipe.BatchesOf(session.self(), step);
    auto attempted = train::RunStep(plan, batches, session, experts, model);
    if (step == recipe.again_step && exchange::FailureIn(attempted.status())) {
      experts.Reset();
      model.backbone().ResetGradients();
      plan.attempt = ++attempt;
      attempted = train::RunStep(plan, batches, session, experts, model);
    }
    PCMOE_ASSIGN_OR_RETURN(const train::StepReport report, std::move(attempted));
    const auto tokens = static_cast<double>(std::max<int64_t>(report.own.loss_tokens, 1));
    outcome.losses.push_back(report.own.loss_sum / tokens);
    outcome.grad_norms.push_back(report.grad_norm);
  }
  return absl::OkStatus();
}

absl::Status Export(const Recipe& recipe, const Party& party, exchange::Session& session,
                    Outcome& outcome) {
  PCMOE_RETURN_IF_ERROR(session.EnterStep(static_cast<uint64_t>(recipe.steps - 1),
                                          session.attempt(), exchange::Session::Phase::kExport));
  exchange::ModelFetch fetch(recipe.config, *party.map, *party.owners, party.model->shard(),
                             party.model->backbone(), session);
  fetch.Begin(static_cast<uint64_t>(recipe.steps));
  const auto layers = static_cast<int>(recipe.config.num_layers);
  std::vector<int> stages = {layers};
  for (int stage = 0; stage < layers; ++stage) stages.push_back(stage);
  stages.push_back(layers + 1);
  for (const int stage : stages) {
    PCMOE_ASSIGN_OR_RETURN(const model::StageTensors tensors, fetch.Next(stage));
    outcome.exported.merge(Copies(NamedStage(recipe.config, stage, tensors)));
  }
  return absl::OkStatus();
}

// `finished` keeps those that are done from leaving while others still read their last votes.
Outcome RunParty(const Recipe& recipe, transport::Channel& channel, std::latch& finished) {
  at::set_num_threads(1);  // of this thread
  Outcome outcome;
  std::unique_ptr<border::Ledger> ledger;
  if (!recipe.ledgers.empty()) {
    const std::vector<std::string> names = Names(recipe.parties);
    const std::string& name = names[static_cast<size_t>(channel.self())];
    ledger = *border::Ledger::Open(absl::StrCat(recipe.ledgers, "/", name, ".jsonl"), names);
  }
  border::EgressGate gate({.allow_readable_rows = true}, std::move(ledger));
  exchange::Session session(&channel, &gate,
                            {.peer_timeout = recipe.peer_timeout, .names = Names(recipe.parties)});
  const Party party = Party::Create(recipe, session);
  outcome.status = RunSteps(recipe, session, *party.experts, *party.model, outcome);
  if (outcome.status.ok() && recipe.export_at_end) {
    outcome.status = Export(recipe, party, session, outcome);
  }
  if (!outcome.status.ok()) {
    session.TellAbort(
        exchange::FailureIn(outcome.status)
            .value_or(exchange::Failure{session.self(), exchange::AbortReason::kLocalError}));
  }
  finished.count_down();
  if (outcome.status.ok()) finished.wait();
  session.Close();
  outcome.experts = ExpertWeights(*party.model);
  outcome.backbone = BackboneWeights(*party.model);
  return outcome;
}

}  // namespace

exchange::MaskKeySigner UnsignedKeys() {
  return {.sign =
              [](const border::MaskKeyPair& key, const border::MaskContext&) {
                wire::Buffer share = wire::Buffer::Allocate(key.public_key().size());
                std::copy(key.public_key().begin(), key.public_key().end(),
                          share.writable().begin());
                return share;
              },
          .verify = [](std::span<const uint8_t> share, const border::MaskContext&,
                       wire::PartyIndex) -> absl::StatusOr<border::MaskPublicKey> {
            border::MaskPublicKey key{};
            if (share.size() != key.size()) return absl::InvalidArgumentError("not a key");
            std::copy(share.begin(), share.end(), key.begin());
            return key;
          }};
}

Party Party::Create(const Recipe& recipe, exchange::Session& session) {
  const auto sparse = static_cast<size_t>(
      std::count(recipe.config.sparse_layers.begin(), recipe.config.sparse_layers.end(), true));
  const auto placement = federation::Placement::Create(
      recipe.owners, sparse, static_cast<size_t>(recipe.config.num_experts),
      static_cast<size_t>(recipe.parties));
  Party party;
  party.map = std::make_unique<exchange::ExpertMap>(recipe.config, *placement);
  party.owners =
      std::make_unique<exchange::BackboneOwners>(recipe.config, *party.map, recipe.modes);
  const exchange::BackboneOwners& owners = *party.owners;
  party.model = *train::PartyModel::Create(recipe.config, recipe.run,
                                           owners.HoldingsOf(session.self(), *party.map));
  base::KeyedStream::Key key{};
  key[0] = static_cast<uint8_t>(session.self());
  if (recipe.weights) {
    party.experts = *exchange::WeightsProvider::Create(
        recipe.config, *party.map, owners, party.model->shard(), party.model->backbone(), session,
        *recipe.weights,
        {.signer = recipe.signer ? recipe.signer(session.self()) : UnsignedKeys(),
         .rounding = key});
  } else {
    party.owned = std::make_unique<exchange::OwnedExperts>(recipe.config, *party.map,
                                                           party.model->shard(), session, 1000);
    party.experts = std::make_unique<exchange::RowsProvider>(*party.owned, session, key);
  }
  return party;
}

train::StepPlan Recipe::PlanOf(int64_t step) const {
  return {.step = step,
          .attempt = 1,
          .learning_rate = run.learning_rate,
          .max_grad_norm = run.max_grad_norm,
          .balance_coef = config.router_aux_loss_coef};
}

std::vector<model::MicroBatch> Recipe::BatchesOf(int party, int64_t step) const {
  std::vector<model::MicroBatch> batches;
  if (party == without_data) return batches;
  if (round_robin &&
      federation::ActiveParty(kScheduleSeed, static_cast<uint64_t>(step), parties) != party) {
    return batches;
  }
  const int count = party == 2 ? 1 : 2;
  std::mt19937 random(static_cast<uint32_t>(1000 * step + party) + data_seed);
  for (int m = 0; m < count; ++m) {
    model::MicroBatch batch;
    batch.tokens_bs = at::empty({kSequences, kLength}, at::kLong);
    int64_t* tokens = batch.tokens_bs.mutable_data_ptr<int64_t>();
    for (int64_t i = 0; i < kSequences * kLength; ++i) {
      // Each party has its own half of the words, so that loads are uneven.
      tokens[i] = static_cast<int64_t>(random() % 32 + 8 * static_cast<uint32_t>(party));
    }
    batch.labels_bs = batch.tokens_bs.clone();
    if (party == 1) batch.labels_bs.mutable_data_ptr<int64_t>()[5] = -100;
    batch.document_starts.assign(kSequences, {0});
    batches.push_back(std::move(batch));
  }
  return batches;
}

Recipe SmallRecipe(const std::string& family) {
  Recipe recipe{.config = *model::ParseConfig(ConfigJson(family), "test")};
  recipe.run.learning_rate = 2e-3;
  recipe.run.weight_decay = 0.01;
  recipe.run.adam_epsilon = 1e-6;  // else a gradient of rounding errors alone moves its weight
  recipe.run.max_grad_norm = 0.2;
  recipe.run.seed = 11;
  return recipe;
}

Weights ExpertWeights(train::PartyModel& model) {
  return Copies(model::NamedExperts(model.config(), model.shard().weights()));
}

Weights BackboneWeights(train::PartyModel& model) {
  return Copies(model::NamedBackbone(model.config(), model.backbone().weights()));
}

std::vector<Outcome> RunParties(const Recipe& recipe,
                                std::vector<std::unique_ptr<transport::Channel>> channels) {
  std::vector<Outcome> outcomes(channels.size());
  std::latch finished(static_cast<std::ptrdiff_t>(channels.size()));
  std::vector<std::thread> threads;
  for (size_t party = 0; party < channels.size(); ++party) {
    threads.emplace_back(
        [&, party] { outcomes[party] = RunParty(recipe, *channels[party], finished); });
  }
  for (std::thread& thread : threads) thread.join();
  return outcomes;
}

std::vector<std::unique_ptr<transport::Channel>> LoopbackChannels(int parties) {
  return transport::MakeLoopback(parties);
}

std::vector<std::unique_ptr<transport::Channel>> GrpcChannels(const transport::TestParties& parties,
                                                              int count) {
  std::vector<std::unique_ptr<transport::Channel>> channels;
  for (int party = 0; party < count; ++party) {
    channels.push_back(*transport::CreateGrpcChannel(parties.Options(party)));
  }
  return channels;
}

std::vector<std::string> Differences(const Weights& a, const Weights& b) {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : b) {
    if (!a.contains(name)) names.push_back(name);
  }
  for (const auto& [name, tensor] : a) {
    const auto found = b.find(name);
    if (found == b.end() || found->second.sizes() != tensor.sizes()) {
      names.push_back(name);
      continue;
    }
    const at::Tensor left = tensor.contiguous();
    const at::Tensor right = found->second.contiguous();
    const bool same =
        std::memcmp(left.const_data_ptr(), right.const_data_ptr(), left.nbytes()) == 0;
    if (!same) names.push_back(name);
  }
  return names;
}

}  // namespace pcmoe::testing_federation
