// pcmoe/exchange/shard/owned_experts.cc: see owned_experts.h.
#include "pcmoe/exchange/shard/owned_experts.h"

namespace pcmoe::exchange {

OwnedExperts::OwnedExperts(const model::ModelConfig& config, const ExpertMap& map,
                           model::ExpertShard& shard, Session& session, int64_t max_rows)
    : config_(config), map_(map), shard_(shard), session_(session), max_rows_(max_rows) {
  for (const auto kind : {wire::MessageKind::kExpertRows, wire::MessageKind::kRowGradients}) {
    session.Serve(kind, [this](wire::PartyIndex from, wire::Message message) {
      return OnRequest(from, std::move(message));
    });
  }
}

absl::Status OwnedExperts::OnRequest(wire::PartyIndex from, wire::Message message) {
  if (!open_pass_) {
    waiting_.emplace_back(from, std::move(message));
    return absl::OkStatus();
  }
  return message.header.kind == wire::MessageKind::kExpertRows
             ? OnExpertRows(from, std::move(message))
             : OnRowGradients(from, std::move(message));
}

border::RowLimits OwnedExperts::limits() const {
  return {.max_rows = max_rows_,
          .width = config_.hidden_size,
          .max_experts_per_row = config_.experts_per_token,
          .num_experts = config_.num_experts,
          .dtype = shard_.compute_dtype()};
}

absl::Status OwnedExperts::BeginPass(std::vector<int64_t> micro_batches_p, bool training) {
  training_ = training;
  micro_batches_p_ = std::move(micro_batches_p);
  const auto layers = static_cast<size_t>(config_.num_layers);
  answered_lp_.assign(layers, std::vector<int64_t>(micro_batches_p_.size(), 0));
  finished_l_.assign(layers, false);
  requests_.clear();
  if (training) shard_.Reset();
  open_pass_ = true;
  const auto waiting = std::exchange(waiting_, {});
  for (const auto& [from, message] : waiting) {
    const absl::Status answered = OnRequest(from, message);
    if (answered.code() == absl::StatusCode::kInvalidArgument) {
      return session_.FailureStatus({from, AbortReason::kBadMessage}, answered.message());
    }
    PCMOE_RETURN_IF_ERROR(answered);
  }
  return absl::OkStatus();
}

void OwnedExperts::Reset() {
  open_pass_ = false;
  waiting_.clear();
  requests_.clear();
  shard_.Reset();
}

absl::Status OwnedExperts::CheckPlace(wire::PartyIndex from,
                                      const wire::MessageHeader& header) const {
  if (header.layer >= config_.num_layers || !map_.Owns(session_.self(), header.layer)) {
    return absl::InvalidArgumentError("asked for a layer without experts here");
  }
  if (micro_batches_p_.empty() ||
      header.micro_batch >= micro_batches_p_[static_cast<size_t>(from)]) {
    return absl::InvalidArgumentError("sent more micro-batches than it announced");
  }
  return absl::OkStatus();
}

absl::Status OwnedExperts::OnExpertRows(wire::PartyIndex from, wire::Message message) {
  const wire::MessageHeader header = message.header;
  PCMOE_RETURN_IF_ERROR(CheckPlace(from, header));
  PCMOE_ASSIGN_OR_RETURN(border::ExpertRows request,
                         border::DecodeExpertRows(std::move(message.payload), limits()));
  const std::span<const int32_t> local = map_.LocalIndex(session_.self(), header.layer);
  std::vector<model::RowExpert> pairs;
  pairs.reserve(request.pairs.size());
  for (const border::WirePair& pair : request.pairs) {
    if (local[pair.expert] < 0) return absl::InvalidArgumentError("asked for an expert not here");
    pairs.push_back({static_cast<int32_t>(pair.row), local[pair.expert], pair.weight});
  }
  const int64_t rows = request.rows_rd.size(0);
  PCMOE_ASSIGN_OR_RETURN(model::PairPlan plan,
                         model::PlanPairs(pairs, rows, shard_.ExpertsIn(header.layer)));
  if (training_) {
    requests_[{header.layer, from, header.micro_batch}] = {rows,
                                                           static_cast<int64_t>(pairs.size())};
  }
  const at::Tensor z_rd = shard_.Forward(header.layer, {from, header.micro_batch}, request.rows_rd,
                                         std::move(plan), training_);
  if (!training_) ++answered_lp_[header.layer][static_cast<size_t>(from)];
  return session_.Send(from, wire::MessageKind::kExpertOutputs, header.layer, header.micro_batch,
                       border::EncodeRows(z_rd));
}

absl::Status OwnedExperts::OnRowGradients(wire::PartyIndex from, wire::Message message) {
  const wire::MessageHeader header = message.header;
  PCMOE_RETURN_IF_ERROR(CheckPlace(from, header));
  const auto found = requests_.find({header.layer, from, header.micro_batch});
  if (found == requests_.end()) {
    return absl::InvalidArgumentError("sent gradients of rows that it never sent");
  }
  const Request request = found->second;
  requests_.erase(found);
  PCMOE_ASSIGN_OR_RETURN(const at::Tensor dz_rd,
                         border::DecodeRows(std::move(message.payload), request.rows, limits()));
  PCMOE_ASSIGN_OR_RETURN(const model::ExpertShard::RequestGradients gradients,
                         shard_.Backward(header.layer, {from, header.micro_batch}, dz_rd));
  // dx leaves before the weight gradients are computed: somebody waits for it.
  PCMOE_RETURN_IF_ERROR(
      session_.Send(from, wire::MessageKind::kInputGradients, header.layer, header.micro_batch,
                    border::EncodeInputGradients(gradients.dx_rd, gradients.dweight_n)));
  ++answered_lp_[header.layer][static_cast<size_t>(from)];
  FinishIfComplete(header.layer);
  return absl::OkStatus();
}

bool OwnedExperts::OwesRequests(wire::PartyIndex party, int64_t layer) const {
  return map_.Owns(session_.self(), layer) &&
         answered_lp_[static_cast<size_t>(layer)][static_cast<size_t>(party)] <
             micro_batches_p_[static_cast<size_t>(party)];
}

void OwnedExperts::HomeDone(int64_t layer) {
  const auto self = static_cast<size_t>(session_.self());
  answered_lp_[static_cast<size_t>(layer)][self] = micro_batches_p_[self];
  FinishIfComplete(layer);
}

void OwnedExperts::FinishIfComplete(int64_t layer) {
  if (!training_ || finished_l_[static_cast<size_t>(layer)]) return;
  for (wire::PartyIndex party = 0; party < session_.parties(); ++party) {
    if (OwesRequests(party, layer)) return;
  }
  finished_l_[static_cast<size_t>(layer)] = true;
  if (map_.Owns(session_.self(), layer)) shard_.FinishLayer(layer);
}

wire::PartyIndex OwnedExperts::FirstOwing() const {
  for (int64_t layer = config_.num_layers - 1; layer >= 0; --layer) {
    for (wire::PartyIndex party = 0; party < session_.parties(); ++party) {
      if (party != session_.self() && OwesRequests(party, layer)) return party;
    }
  }
  return -1;
}

absl::Status OwnedExperts::FinishPass() {
  PCMOE_RETURN_IF_ERROR(
      session_.ServeUntil([this] { return FirstOwing() < 0; }, [this] { return FirstOwing(); }));
  open_pass_ = false;
  return absl::OkStatus();
}

}  // namespace pcmoe::exchange
