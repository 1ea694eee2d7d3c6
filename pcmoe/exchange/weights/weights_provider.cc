// pcmoe/exchange/weights/weights_provider.cc: see weights_provider.h.
#include "pcmoe/exchange/weights/weights_provider.h"

#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "pcmoe/model/local_experts.h"

namespace pcmoe::exchange {
namespace {

// A place among the masks that no stage has.
constexpr uint16_t kCountsPlace = 0xFFFF;

// A shard's matrices, one entry an owned expert, at their places among all experts.
void PlaceExperts(const OwnedUnits& own, const model::ExpertMatrices& owned,
                  model::ExpertMatrices& all) {
  size_t index = 0;
  for (const UnitTensor& unit : own.tensors) {
    if (unit.expert < 0 || unit.entry != 0) continue;
    all.gate_up_fd[static_cast<size_t>(unit.expert)] = owned.gate_up_fd[index];
    all.down_df[static_cast<size_t>(unit.expert)] = owned.down_df[index];
    ++index;
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<WeightsProvider>> WeightsProvider::Create(
    const model::ModelConfig& config, const ExpertMap& map, const BackboneOwners& owners,
    model::ExpertShard& shard, model::Backbone& backbone, Session& session, const Options& options,
    Secrets secrets) {
  if (session.parties() < 3 && !options.allow_pairwise) {
    return absl::FailedPreconditionError(
        "exchange \"weights\" needs three parties: the owner of an expert would learn the "
        "gradients "
        "of its only peer; set [border] allow_pairwise = true if that is meant");
  }
  // Not of the run's id: two federations with the same seeds, on other ports, train the same bits.
  PCMOE_ASSIGN_OR_RETURN(const border::RoundingKey rounding,
                         border::RoundingKey::Derive(secrets.rounding, {}));
  std::unique_ptr<WeightsProvider> provider(new WeightsProvider(
      config, map, owners, shard, backbone, session, options, std::move(secrets), rounding));
  backbone.SetSource(provider.get());
  return provider;
}

WeightsProvider::WeightsProvider(const model::ModelConfig& config, const ExpertMap& map,
                                 const BackboneOwners& owners, model::ExpertShard& shard,
                                 model::Backbone& backbone, Session& session,
                                 const Options& options, Secrets secrets,
                                 const border::RoundingKey& rounding)
    : config_(config),
      modes_(owners.modes()),
      options_(options),
      units_(config, map, owners, shard.compute_dtype(), options.int8),
      shard_(shard),
      backbone_(backbone),
      session_(session),
      agreement_(session, std::move(secrets.signer), secrets.run, options.allow_pairwise),
      held_(config, options.min_rows),
      fetcher_(
          units_, session, [this](int stage) { return OwnWeights(stage); }, meter_),
      sums_(
          units_, session, [this](int stage) { return OwnGradients(stage); }, rounding, meter_),
      layers_(static_cast<size_t>(config.num_layers), model::ExpertLayer(options.recompute)),
      here_(static_cast<size_t>(units_.stages())),
      gradients_(static_cast<size_t>(units_.stages())),
      identity_e_(static_cast<size_t>(config.num_experts)) {
  std::iota(identity_e_.begin(), identity_e_.end(), 0);
}

// The tensors of a stage that this party owns, at their places among all.
StageTensors WeightsProvider::OwnWeights(int stage) {
  StageTensors tensors = units_.Frame(stage);
  const OwnedUnits& own = units_.Of(stage, session_.self());
  if (own.empty()) return tensors;
  if (stage == units_.EmbeddingStage()) {
    // What travels is in the compute dtype; rounding before or after the look-up is the same.
    tensors.embedding_vd = backbone_.HomeEmbedding().embedding_vd.to(shard_.compute_dtype());
    return tensors;
  }
  if (stage == units_.HeadStage()) {
    const model::HeadUse head = backbone_.HomeHead();
    tensors.final_norm_d = head.final_norm_d;
    if (!Tied()) tensors.head_vd = head.head_vd;
    return tensors;
  }
  if (own.backbone_elements > 0) tensors.block = *backbone_.HomeBlock(stage).weights;
  PlaceExperts(own, shard_.compute(stage), tensors.experts);
  return tensors;
}

StageTensors WeightsProvider::OwnGradients(int stage) {
  StageTensors tensors = units_.Frame(stage);
  const OwnedUnits& own = units_.Of(stage, session_.self());
  if (own.empty()) return tensors;
  if (stage == units_.EmbeddingStage()) {
    tensors.embedding_vd = backbone_.HomeEmbedding().dembedding_vd;
    return tensors;
  }
  if (stage == units_.HeadStage()) {
    const model::HeadUse head = backbone_.HomeHead();
    tensors.final_norm_d = head.dfinal_norm_d;
    if (!Tied()) tensors.head_vd = head.dhead_vd;
    return tensors;
  }
  if (own.backbone_elements > 0) tensors.block = *backbone_.HomeBlock(stage).gradients;
  if (own.expert_elements == 0) return tensors;
  shard_.MarkSummed(stage);
  PlaceExperts(own, shard_.gradient_matrices(stage), tensors.experts);
  return tensors;
}

std::vector<Visit> WeightsProvider::VisitsOf(int64_t sweeps) const {
  std::vector<Visit> visits;
  const auto visit = [&](int stage, int number) {
    if (units_.HasUnits(stage)) visits.push_back({stage, number});
  };
  const int layers = units_.EmbeddingStage();
  for (int sweep = 0; sweep < static_cast<int>(sweeps); ++sweep) {
    visit(units_.EmbeddingStage(), 2 * sweep);
    for (int layer = 0; layer < layers; ++layer) visit(layer, 2 * sweep);
    visit(units_.HeadStage(), 2 * sweep);
  }
  if (!training_ || options_.keep_fetched) return visits;
  for (int layer = layers - 1; layer >= 0; --layer) visit(layer, 1);
  return visits;
}

absl::Status WeightsProvider::BeginPass(const model::PassPlan& plan) {
  training_ = plan.training;
  routing_.clear();
  outputs_.clear();
  input_gradients_.clear();
  for (model::ExpertLayer& layer : layers_) layer.Clear();
  if (training_) {
    shard_.Reset();
    counts_le_.assign(static_cast<size_t>(config_.num_layers * config_.num_experts), 0);
    PCMOE_RETURN_IF_ERROR(agreement_.Agree());
    sums_.Begin(&agreement_.masks());
  }
  const int64_t sweeps =
      training_ ? 1 : *std::max_element(plan.sweeps_p.begin(), plan.sweeps_p.end());
  fetcher_.Begin(VisitsOf(sweeps), version_);
  return absl::OkStatus();
}

absl::Status WeightsProvider::BeginForward(int64_t layer) {
  outputs_.clear();
  const auto stage = static_cast<int>(layer);
  if (!units_.HasUnits(stage)) return session_.Poll();
  PCMOE_ASSIGN_OR_RETURN(Here(stage), fetcher_.Next(stage));
  return absl::OkStatus();
}

absl::Status WeightsProvider::Dispatch(int64_t layer, int64_t micro_batch, const at::Tensor& h_td,
                                       const model::Routing& routing) {
  PCMOE_ASSIGN_OR_RETURN(
      model::PairPlan plan,
      model::PlanPairs(model::PairsFor(routing, identity_e_), h_td.size(0), config_.num_experts));
  if (training_) {
    for (size_t e = 0; e < identity_e_.size(); ++e) {
      counts_le_[static_cast<size_t>(layer) * identity_e_.size() + e] +=
          static_cast<uint32_t>(plan.expert_offsets[e + 1] - plan.expert_offsets[e]);
    }
    routing_[{layer, micro_batch}] = routing;
  }
  outputs_[micro_batch] = layers_[static_cast<size_t>(layer)].Forward(
      Here(static_cast<int>(layer)).experts, {session_.self(), micro_batch}, h_td, std::move(plan),
      training_);
  return session_.Poll();
}

absl::StatusOr<at::Tensor> WeightsProvider::Combine(int64_t, int64_t micro_batch) {
  return std::move(outputs_[micro_batch]);
}

absl::Status WeightsProvider::EndForward(int64_t layer) {
  if (!training_ || !options_.keep_fetched) Here(static_cast<int>(layer)) = {};
  const bool last = layer + 1 == config_.num_layers;
  return training_ && last ? ShareCounts() : absl::OkStatus();
}

absl::Status WeightsProvider::ShareCounts() {
  std::vector<wire::PartyIndex> peers;
  for (int peer = 0; peer < session_.parties(); ++peer) {
    if (peer != session_.self()) peers.push_back(peer);
  }
  wire::Buffer payload = wire::Buffer::Allocate(4 * counts_le_.size());
  PCMOE_RETURN_IF_ERROR(border::MaskIntegers(
      counts_le_.data(), counts_le_.size(), {.step = session_.step(), .layer = kCountsPlace}, peers,
      agreement_.masks(), reinterpret_cast<uint32_t*>(payload.writable().data())));
  std::memcpy(counts_le_.data(), payload.bytes().data(), payload.size());
  return session_.Broadcast(wire::MessageKind::kMaskedCounts, std::move(payload));
}

absl::StatusOr<std::optional<model::FederationLoad>> WeightsProvider::AwaitFederationLoad() {
  for (int peer = 0; peer < session_.parties(); ++peer) {
    if (peer == session_.self()) continue;
    PCMOE_ASSIGN_OR_RETURN(const wire::Buffer payload,
                           session_.Await(wire::MessageKind::kMaskedCounts, peer, 0, 0));
    if (payload.size() != 4 * counts_le_.size()) {
      return session_.FailureStatus({peer, AbortReason::kBadMessage}, "counts of another length");
    }
    border::AddInto(counts_le_.data(), payload.bytes().data(), counts_le_.size());
  }
  model::FederationLoad load{.chosen_e = std::vector<int64_t>(identity_e_.size(), 0)};
  std::vector<std::vector<int64_t>> rows_le(static_cast<size_t>(config_.num_layers));
  int64_t choices = 0;
  for (size_t layer = 0; layer < rows_le.size(); ++layer) {
    if (!config_.sparse_layers[layer]) continue;
    for (size_t e = 0; e < identity_e_.size(); ++e) {
      const int64_t rows = counts_le_[layer * identity_e_.size() + e];
      rows_le[layer].push_back(rows);
      load.chosen_e[e] += rows;
      choices += rows;
    }
  }
  load.tokens = choices / config_.experts_per_token;
  held_.Decide(rows_le);
  // A private backbone is the paper's: each party balances its own tokens.
  if (modes_.blocks != PartMode::kAggregated) return std::nullopt;
  return load;
}

absl::Status WeightsProvider::BeginBackward(int64_t layer) {
  input_gradients_.clear();
  const auto stage = static_cast<int>(layer);
  if (!units_.HasUnits(stage)) return session_.Poll();
  if (!options_.keep_fetched) {
    PCMOE_ASSIGN_OR_RETURN(Here(stage), fetcher_.Next(stage));
  }
  Gradients(stage) = sums_.Open(stage);
  return absl::OkStatus();
}

absl::Status WeightsProvider::DispatchGradient(int64_t layer, int64_t micro_batch,
                                               const at::Tensor& dy_td) {
  PCMOE_ASSIGN_OR_RETURN(
      model::ExpertLayer::RequestGradients request,
      layers_[static_cast<size_t>(layer)].Backward(Here(static_cast<int>(layer)).experts,
                                                   {session_.self(), micro_batch}, dy_td));
  const auto routing = routing_.extract({layer, micro_batch});
  model::ExpertInputGradients& result = input_gradients_[micro_batch];
  result.dh_td = std::move(request.dx_rd);
  result.dweights_tk = at::zeros_like(routing.mapped().weights_tk);
  model::ScatterWeightGradients(routing.mapped(), identity_e_, request.dweight_n,
                                result.dweights_tk);
  return session_.Poll();
}

absl::StatusOr<model::ExpertInputGradients> WeightsProvider::CombineGradient(int64_t,
                                                                             int64_t micro_batch) {
  return std::move(input_gradients_[micro_batch]);
}

absl::Status WeightsProvider::EndBackward(int64_t layer) {
  const auto stage = static_cast<int>(layer);
  Here(stage) = {};
  if (!units_.HasUnits(stage)) return session_.Poll();
  model::ExpertMatrices& experts = Gradients(stage).experts;
  if (!experts.down_df.empty()) {
    layers_[static_cast<size_t>(layer)].AddWeightGradients(experts);
    for (size_t e = 0; e < experts.down_df.size(); ++e) {
      held_.Apply(layer, static_cast<int64_t>(e), experts.gate_up_fd[e], experts.down_df[e]);
    }
  }
  Gradients(stage) = {};
  PCMOE_RETURN_IF_ERROR(sums_.Close(stage));
  return session_.Poll();
}

absl::Status WeightsProvider::FinishPass() { return training_ ? sums_.Finish() : fetcher_.Drain(); }

void WeightsProvider::Commit() {
  held_.Commit();
  ++version_;
}

void WeightsProvider::Reset() {
  sums_.Reset();
  held_.Reset();
  agreement_.Forget();
  for (model::ExpertLayer& layer : layers_) layer.Clear();
  here_.assign(here_.size(), {});
  gradients_.assign(gradients_.size(), {});
  routing_.clear();
  outputs_.clear();
  input_gradients_.clear();
}

absl::Status WeightsProvider::SaveState(const std::filesystem::path& folder) {
  return held_.Save(folder);
}

absl::Status WeightsProvider::LoadState(const std::filesystem::path& folder, int64_t step) {
  version_ = static_cast<uint64_t>(step);
  if (!folder.empty()) return held_.Load(folder);
  held_.Clear();
  return absl::OkStatus();
}

absl::StatusOr<model::EmbeddingUse> WeightsProvider::BeginEmbedding() {
  if (modes_.embedding != PartMode::kAggregated) return backbone_.HomeEmbedding();
  const int stage = units_.EmbeddingStage();
  PCMOE_ASSIGN_OR_RETURN(Here(stage), fetcher_.Next(stage));
  return model::EmbeddingUse{Here(stage).embedding_vd, {}};
}

absl::Status WeightsProvider::EndEmbedding() {
  if (!Tied()) Here(units_.EmbeddingStage()) = {};  // else it is the head as well
  return absl::OkStatus();
}

model::BlockUse WeightsProvider::Block(int64_t layer) {
  if (modes_.blocks != PartMode::kAggregated) return backbone_.HomeBlock(layer);
  const auto stage = static_cast<int>(layer);
  return {&Here(stage).block, &Gradients(stage).block};
}

absl::StatusOr<model::HeadUse> WeightsProvider::BeginHead() {
  if (modes_.head != PartMode::kAggregated) return backbone_.HomeHead();
  const int stage = units_.HeadStage();
  PCMOE_ASSIGN_OR_RETURN(Here(stage), fetcher_.Next(stage));
  model::HeadUse use{.final_norm_d = Here(stage).final_norm_d, .head_vd = Here(stage).head_vd};
  if (training_) {
    Gradients(stage) = sums_.Open(stage);
    use.dfinal_norm_d = Gradients(stage).final_norm_d;
    use.dhead_vd = Gradients(stage).head_vd;
  }
  if (Tied()) {
    const int embedding = units_.EmbeddingStage();
    use.head_vd = Here(embedding).embedding_vd;
    if (training_) {
      Gradients(embedding) = sums_.Open(embedding);
      use.dhead_vd = Gradients(embedding).embedding_vd;
    }
  }
  return use;
}

absl::Status WeightsProvider::EndHead() {
  if (modes_.head != PartMode::kAggregated) return absl::OkStatus();
  const int stage = units_.HeadStage();
  Here(stage) = {};
  Gradients(stage) = {};
  Here(units_.EmbeddingStage()) = {};
  return training_ ? sums_.Close(stage) : absl::OkStatus();
}

absl::StatusOr<model::EmbeddingUse> WeightsProvider::BeginEmbeddingBackward() {
  if (modes_.embedding != PartMode::kAggregated) return backbone_.HomeEmbedding();
  const int stage = units_.EmbeddingStage();
  if (!Tied()) Gradients(stage) = sums_.Open(stage);
  return model::EmbeddingUse{{}, Gradients(stage).embedding_vd};
}

absl::Status WeightsProvider::EndEmbeddingBackward() {
  if (modes_.embedding != PartMode::kAggregated) return absl::OkStatus();
  Gradients(units_.EmbeddingStage()) = {};
  return sums_.Close(units_.EmbeddingStage());
}

}  // namespace pcmoe::exchange
