// pcmoe/audit/view.cc: see view.h.
#include "pcmoe/audit/view.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <unordered_map>

#include "pcmoe/border/rows_codec.h"

namespace pcmoe::audit {
namespace {

constexpr uint16_t kEvaluation = 0x8000;  // top bit of a header's layer

// One message of rows, with the gradients that followed.
struct Trip {
  RowSource source;
  uint32_t attempt = 0;
  int64_t rows = 0;  // without padding
  at::Tensor x_rd, q_rd, gate_re;
};
using TripKey = std::tuple<int64_t, int64_t, int, int, int64_t>;  // layer, step, home, owner, m-b

at::ScalarType DtypeOf(std::span<const uint8_t> payload) {
  return payload.size() > 8 && payload[8] == 2 ? at::kBFloat16 : at::kFloat;
}

wire::Buffer CopyOf(std::span<const uint8_t> bytes) {
  wire::Buffer buffer = wire::Buffer::Allocate(bytes.size());
  std::copy(bytes.begin(), bytes.end(), buffer.writable().begin());
  return buffer;
}

border::RowLimits LimitsFor(const model::ModelConfig& config, std::span<const uint8_t> payload) {
  return {.max_rows = int64_t{1} << 24,
          .width = config.hidden_size,
          .max_experts_per_row = config.experts_per_token,
          .num_experts = config.num_experts,
          .dtype = DtypeOf(payload)};
}

absl::Status Named(const absl::Status& status, const Received& message) {
  const wire::MessageHeader& header = message.record.header;
  return absl::DataLossError(absl::StrCat("the recording's ", std::string(NameOf(header.kind)),
                                          " of party ", message.record.from, ", step ", header.step,
                                          ", layer ", header.layer,
                                          " cannot be used: ", std::string(status.message())));
}

absl::StatusOr<Trip> ReadRows(const Received& message, const model::ModelConfig& config) {
  auto decoded =
      border::DecodeExpertRows(CopyOf(message.payload), LimitsFor(config, message.payload));
  if (!decoded.ok()) return Named(decoded.status(), message);
  Trip trip;
  for (const border::WirePair& pair : decoded->pairs) {
    trip.rows = std::max<int64_t>(trip.rows, int64_t{pair.row} + 1);
  }
  trip.x_rd = decoded->rows_rd.narrow(0, 0, trip.rows).to(at::kFloat, false, /*copy=*/true);
  trip.q_rd = at::zeros_like(trip.x_rd);
  trip.gate_re = at::zeros({trip.rows, config.num_experts});
  float* gates = trip.gate_re.mutable_data_ptr<float>();
  for (const border::WirePair& pair : decoded->pairs) {
    gates[int64_t{pair.row} * config.num_experts + pair.expert] = pair.weight;
  }
  return trip;
}

absl::Status ReadGradients(const Received& message, const model::ModelConfig& config, Trip& trip) {
  uint32_t rows = 0;
  if (message.payload.size() >= sizeof(rows)) {
    std::memcpy(&rows, message.payload.data(), sizeof(rows));
  }
  const auto decoded =
      border::DecodeRows(CopyOf(message.payload), rows, LimitsFor(config, message.payload));
  if (!decoded.ok()) return Named(decoded.status(), message);
  if (int64_t{rows} < trip.rows) {
    return Named(absl::DataLossError("fewer gradients than rows"), message);
  }
  trip.q_rd = decoded->narrow(0, 0, trip.rows).to(at::kFloat, false, /*copy=*/true);
  return absl::OkStatus();
}

// Joins a layer's trips; rows of one home, step and micro-batch that are equal bit for bit are one.
LayerView Join(const std::vector<const Trip*>& trips, bool several_owners) {
  LayerView view;
  if (trips.empty()) return view;
  std::vector<at::Tensor> x, q, gate;
  for (const Trip* trip : trips) {
    x.push_back(trip->x_rd);
    q.push_back(trip->q_rd);
    gate.push_back(trip->gate_re);
  }
  view.x_rd = at::cat(x);
  view.q_rd = at::cat(q);
  view.gate_re = at::cat(gate);
  for (const Trip* trip : trips) {
    for (int64_t place = 0; place < trip->rows; ++place) {
      view.sources.push_back(trip->source);
      view.sources.back().place = place;
    }
  }
  if (!several_owners) return view;

  std::unordered_map<std::string, int64_t> first_with;
  std::vector<int64_t> kept;
  std::vector<RowSource> sources;
  const int64_t width = view.x_rd.size(1);
  float* gates = view.gate_re.mutable_data_ptr<float>();
  const int64_t experts = view.gate_re.size(1);
  for (size_t r = 0; r < view.sources.size(); ++r) {
    const RowSource& source = view.sources[r];
    std::string key = absl::StrCat(source.step, "/", source.micro_batch, "/", source.home, "/");
    const float* row = view.x_rd.const_data_ptr<float>() + static_cast<int64_t>(r) * width;
    key.append(reinterpret_cast<const char*>(row), static_cast<size_t>(width) * sizeof(float));
    const auto [found, fresh] = first_with.emplace(std::move(key), static_cast<int64_t>(r));
    if (fresh) {
      kept.push_back(static_cast<int64_t>(r));
      sources.push_back(source);
      continue;
    }
    for (int64_t e = 0; e < experts; ++e) {
      gates[found->second * experts + e] += gates[static_cast<int64_t>(r) * experts + e];
    }
  }
  at::Tensor index = at::empty({static_cast<int64_t>(kept.size())}, at::kLong);
  std::copy(kept.begin(), kept.end(), index.mutable_data_ptr<int64_t>());
  view.x_rd = view.x_rd.index_select(0, index);
  view.q_rd = view.q_rd.index_select(0, index);
  view.gate_re = view.gate_re.index_select(0, index);
  view.sources = std::move(sources);
  return view;
}

bool InTraining(const Received& message) {
  return (message.record.header.layer & kEvaluation) == 0;
}

absl::Status ReadMember(const Member& member, const model::ModelConfig& config,
                        const std::set<int64_t>& steps, const std::set<int64_t>& layers,
                        std::map<TripKey, Trip>& trips) {
  for (const Received& message : member.recording->messages()) {
    const wire::MessageHeader& header = message.record.header;
    const auto step = static_cast<int64_t>(header.step);
    if (!InTraining(message) || !steps.contains(step)) continue;
    if (!layers.empty() && !layers.contains(header.layer)) continue;
    const TripKey key{header.layer, step, message.record.from, member.party, header.micro_batch};
    if (header.kind == wire::MessageKind::kExpertRows) {
      if (header.layer >= config.num_layers) {
        return Named(absl::DataLossError("the model has no such layer"), message);
      }
      PCMOE_ASSIGN_OR_RETURN(Trip trip, ReadRows(message, config));
      trip.attempt = header.attempt;
      trip.source = {.step = step,
                     .micro_batch = header.micro_batch,
                     .home = message.record.from,
                     .owner = member.party};
      trips.insert_or_assign(key, std::move(trip));  // of several attempts, the last
    } else if (header.kind == wire::MessageKind::kRowGradients) {
      const auto found = trips.find(key);
      if (found == trips.end() || found->second.attempt != header.attempt) continue;
      PCMOE_RETURN_IF_ERROR(ReadGradients(message, config, found->second));
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<int64_t> StepsWithRows(std::span<const Member> members) {
  std::set<int64_t> steps;
  for (const Member& member : members) {
    for (const Received& message : member.recording->messages()) {
      if (message.record.header.kind != wire::MessageKind::kExpertRows) continue;
      if (InTraining(message)) steps.insert(static_cast<int64_t>(message.record.header.step));
    }
  }
  return {steps.begin(), steps.end()};
}

std::vector<MessageSize> SizesOf(std::span<const Member> members) {
  std::vector<MessageSize> sizes;
  for (const Member& member : members) {
    for (const Received& message : member.recording->messages()) {
      if (!InTraining(message)) continue;
      const wire::MessageHeader& header = message.record.header;
      sizes.push_back({.kind = header.kind,
                       .step = static_cast<int64_t>(header.step),
                       .layer = header.layer,
                       .micro_batch = header.micro_batch,
                       .from = message.record.from,
                       .to = member.party,
                       .bytes = message.record.payload_bytes});
    }
  }
  return sizes;
}

absl::StatusOr<View> MakeView(std::span<const Member> members, const model::ModelConfig& config,
                              const std::set<int64_t>& steps, const std::set<int64_t>& layers) {
  View view;
  view.steps.assign(steps.begin(), steps.end());
  std::map<TripKey, Trip> trips;
  std::set<int> coalition;
  for (const Member& member : members) {
    coalition.insert(member.party);
    PCMOE_RETURN_IF_ERROR(ReadMember(member, config, steps, layers, trips));
  }
  view.sizes = SizesOf(members);
  view.coalition.assign(coalition.begin(), coalition.end());
  // What members of the coalition sent to each other is nobody's secret.
  std::vector<std::vector<const Trip*>> by_layer(static_cast<size_t>(config.num_layers));
  for (const auto& [key, trip] : trips) {
    if (coalition.contains(trip.source.home) || trip.rows == 0) continue;
    by_layer[static_cast<size_t>(std::get<0>(key))].push_back(&trip);
  }
  for (const auto& layer : by_layer) view.layers.push_back(Join(layer, members.size() > 1));
  return view;
}

}  // namespace pcmoe::audit
