// pcmoe/exchange/rows/rows_provider.cc: see rows_provider.h.
#include "pcmoe/exchange/rows/rows_provider.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>

#include "pcmoe/model/kernels.h"

namespace pcmoe::exchange {

RowsProvider::RowsProvider(OwnedExperts& owned, Session& session,
                           const base::KeyedStream::Key& shuffle_key)
    : owned_(owned), session_(session), shuffle_key_(shuffle_key) {}

RowsProvider::Trip RowsProvider::PlanTrip(int owner, int64_t layer, int64_t micro_batch,
                                          const model::Routing& routing,
                                          std::vector<border::WirePair>& pairs) const {
  const int64_t tokens = routing.experts_tk.size(0);
  const int64_t top_k = routing.experts_tk.size(1);
  const int64_t* experts = routing.experts_tk.const_data_ptr<int64_t>();
  const float* weights = routing.weights_tk.const_data_ptr<float>();
  const std::span<const int32_t> there = owned_.map().LocalIndex(owner, layer);
  std::vector<int64_t> chosen;
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t k = 0; k < top_k; ++k) {
      if (there[static_cast<size_t>(experts[t * top_k + k])] < 0) continue;
      chosen.push_back(t);
      break;
    }
  }
  base::KeyedStream stream(shuffle_key_, absl::StrCat("rows/", session_.step(), "/", layer, "/",
                                                      micro_batch, "/", owner));
  for (size_t i = chosen.size(); i > 1; --i) std::swap(chosen[i - 1], chosen[stream.Below(i)]);

  Trip trip;
  trip.token_r = at::empty({static_cast<int64_t>(chosen.size())}, at::kLong);
  std::copy(chosen.begin(), chosen.end(), trip.token_r.mutable_data_ptr<int64_t>());
  trip.padded_rows = border::PaddedRows(static_cast<int64_t>(chosen.size()));
  for (size_t row = 0; row < chosen.size(); ++row) {
    for (int64_t slot = chosen[row] * top_k; slot < (chosen[row] + 1) * top_k; ++slot) {
      if (there[static_cast<size_t>(experts[slot])] < 0) continue;
      pairs.push_back(
          {static_cast<uint32_t>(row), static_cast<uint16_t>(experts[slot]), weights[slot]});
      trip.slot_n.push_back(slot);
    }
  }
  return trip;
}

absl::Status RowsProvider::ComputeLocal(Key key, Batch& batch) {
  const auto [layer, micro_batch] = key;
  const std::span<const int32_t> here = owned_.map().LocalIndex(session_.self(), layer);
  PCMOE_ASSIGN_OR_RETURN(model::PairPlan plan,
                         model::PlanPairs(model::PairsFor(batch.routing, here), batch.h_td.size(0),
                                          owned_.shard().ExpertsIn(layer)));
  batch.local = owned_.shard().Forward(layer, {session_.self(), micro_batch}, batch.h_td,
                                       std::move(plan), training_);
  return absl::OkStatus();
}

absl::Status RowsProvider::BeginForward(int64_t) { return session_.Poll(); }

absl::Status RowsProvider::Dispatch(int64_t layer, int64_t micro_batch, const at::Tensor& h_td,
                                    const model::Routing& routing) {
  Batch batch{.h_td = h_td, .routing = routing};
  batch.trips.resize(static_cast<size_t>(session_.parties()));
  for (int owner = 0; owner < session_.parties(); ++owner) {
    if (owner == session_.self() || !owned_.map().Owns(owner, layer)) continue;
    std::vector<border::WirePair> pairs;
    Trip trip = PlanTrip(owner, layer, micro_batch, routing, pairs);
    rows_sent_ += trip.token_r.size(0);
    if (observer_ && training_) observer_(layer, micro_batch, owner, trip.token_r);
    PCMOE_RETURN_IF_ERROR(
        session_.Send(owner, wire::MessageKind::kExpertRows, static_cast<uint16_t>(layer),
                      static_cast<uint16_t>(micro_batch),
                      border::EncodeExpertRows(h_td, trip.token_r, pairs, trip.padded_rows)));
    batch.trips[static_cast<size_t>(owner)] = std::move(trip);
  }
  batches_.insert_or_assign(Key{layer, micro_batch}, std::move(batch));
  return session_.Poll();
}

absl::StatusOr<at::Tensor> RowsProvider::Combine(int64_t layer, int64_t micro_batch) {
  const Key key{layer, micro_batch};
  Batch& batch = batches_.at(key);
  PCMOE_RETURN_IF_ERROR(ComputeLocal(key, batch));
  at::Tensor y_td = std::move(batch.local);
  for (int owner = 0; owner < session_.parties(); ++owner) {
    const Trip& trip = batch.trips[static_cast<size_t>(owner)];
    if (!trip.token_r.defined()) continue;
    PCMOE_ASSIGN_OR_RETURN(
        wire::Buffer payload,
        session_.Await(wire::MessageKind::kExpertOutputs, owner, static_cast<uint16_t>(layer),
                       static_cast<uint16_t>(micro_batch)));
    const auto z_rd = border::DecodeRows(std::move(payload), trip.padded_rows, owned_.limits());
    if (!z_rd.ok()) {
      return session_.FailureStatus({owner, AbortReason::kBadMessage}, z_rd.status().message());
    }
    model::kernels::ScatterAdd(*z_rd, trip.token_r, y_td);
  }
  batch.h_td = at::Tensor();
  if (!training_) batches_.erase(key);
  return y_td;
}

absl::Status RowsProvider::BeginBackward(int64_t) { return session_.Poll(); }

absl::Status RowsProvider::DispatchGradient(int64_t layer, int64_t micro_batch,
                                            const at::Tensor& dy_td) {
  Batch& batch = batches_.at({layer, micro_batch});
  for (int owner = 0; owner < session_.parties(); ++owner) {
    const Trip& trip = batch.trips[static_cast<size_t>(owner)];
    if (!trip.token_r.defined()) continue;
    PCMOE_RETURN_IF_ERROR(
        session_.Send(owner, wire::MessageKind::kRowGradients, static_cast<uint16_t>(layer),
                      static_cast<uint16_t>(micro_batch),
                      border::EncodeRowsOf(dy_td, trip.token_r, trip.padded_rows)));
  }
  batch.h_td = dy_td;  // for the own experts, once the others are at work
  return session_.Poll();
}

absl::StatusOr<model::ExpertInputGradients> RowsProvider::CombineGradient(int64_t layer,
                                                                          int64_t micro_batch) {
  const auto node = batches_.extract(Key{layer, micro_batch});
  const Batch& batch = node.mapped();
  PCMOE_ASSIGN_OR_RETURN(
      model::ExpertShard::RequestGradients own,
      owned_.shard().Backward(layer, {session_.self(), micro_batch}, batch.h_td));
  model::ExpertInputGradients result;
  result.dh_td = std::move(own.dx_rd);
  result.dweights_tk = at::zeros_like(batch.routing.weights_tk);
  model::ScatterWeightGradients(batch.routing, owned_.map().LocalIndex(session_.self(), layer),
                                own.dweight_n, result.dweights_tk);
  float* dweights = result.dweights_tk.mutable_data_ptr<float>();
  for (int owner = 0; owner < session_.parties(); ++owner) {
    const Trip& trip = batch.trips[static_cast<size_t>(owner)];
    if (!trip.token_r.defined()) continue;
    PCMOE_ASSIGN_OR_RETURN(
        wire::Buffer payload,
        session_.Await(wire::MessageKind::kInputGradients, owner, static_cast<uint16_t>(layer),
                       static_cast<uint16_t>(micro_batch)));
    const auto gradients =
        border::DecodeInputGradients(std::move(payload), trip.padded_rows,
                                     static_cast<int64_t>(trip.slot_n.size()), owned_.limits());
    if (!gradients.ok()) {
      return session_.FailureStatus({owner, AbortReason::kBadMessage},
                                    gradients.status().message());
    }
    model::kernels::ScatterAdd(gradients->dx_rd, trip.token_r, result.dh_td);
    const float* source = gradients->dweight_n.const_data_ptr<float>();
    for (size_t n = 0; n < trip.slot_n.size(); ++n) dweights[trip.slot_n[n]] += source[n];
  }
  return result;
}

absl::Status RowsProvider::EndBackward(int64_t layer) {
  owned_.HomeDone(layer);
  return session_.Poll();
}

absl::Status RowsProvider::BeginPass(const model::PassPlan& plan) {
  training_ = plan.training;
  batches_.clear();
  return owned_.BeginPass(plan.micro_batches_p, plan.training);
}

void RowsProvider::Reset() {
  batches_.clear();
  owned_.Reset();
}

}  // namespace pcmoe::exchange
