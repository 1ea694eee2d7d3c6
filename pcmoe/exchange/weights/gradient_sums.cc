// pcmoe/exchange/weights/gradient_sums.cc: see gradient_sums.h.
#include "pcmoe/exchange/weights/gradient_sums.h"

#include <ATen/ops/zeros.h>

#include <algorithm>

namespace pcmoe::exchange {
namespace {

// Closed stages that may wait for others' exponents or for the masking thread.
constexpr size_t kMaxWaiting = 1;
constexpr uint8_t kNotFiniteExponent = 255;

// Groups of a unit have scales, and streams, of their own.
constexpr uint32_t kMaxGroups = 64;
border::MaskPlace PlaceOf(uint64_t step, int stage, int owner, size_t group) {
  return {.step = step,
          .layer = static_cast<uint16_t>(stage),
          .unit = kMaxGroups * static_cast<uint32_t>(owner) + static_cast<uint32_t>(group)};
}

}  // namespace

GradientSums::GradientSums(const StageUnits& units, Session& session, OwnGradients own,
                           const border::RoundingKey& rounding, std::shared_ptr<ByteMeter> meter)
    : units_(units),
      session_(session),
      own_(std::move(own)),
      rounding_(rounding),
      meter_(std::move(meter)) {
  session_.Serve(
      wire::MessageKind::kExponents,
      [this](wire::PartyIndex from, wire::Message message) { return OnExponents(from, message); });
  session_.Serve(wire::MessageKind::kMaskedGradients,
                 [this](wire::PartyIndex from, wire::Message message) {
                   return OnMaskedGradients(from, message);
                 });
  Reset();
}

void GradientSums::Reset() {
  background_.WaitIdle();
  done_.shares.clear();
  waiting_.clear();
  masks_ = nullptr;
  const auto parties = static_cast<size_t>(units_.parties());
  stages_.assign(static_cast<size_t>(units_.stages()),
                 {.exponents_p = std::vector<Exponents>(parties),
                  .received_p = std::vector<bool>(parties, false)});
}

void GradientSums::Begin(border::PairwiseMasks* masks) {
  Reset();
  masks_ = masks;
}

StageTensors GradientSums::Open(int stage) {
  StageTensors tensors = own_(stage);
  Stage& state = At(stage);
  state.flat_p.assign(static_cast<size_t>(units_.parties()), {});
  state.metered_p.assign(static_cast<size_t>(units_.parties()), nullptr);
  for (int owner = 0; owner < units_.parties(); ++owner) {
    const OwnedUnits& units = units_.Of(stage, owner);
    if (owner == session_.self() || units.empty()) continue;
    at::Tensor& flat = state.flat_p[static_cast<size_t>(owner)];
    flat = at::zeros({units.elements()}, at::kFloat);
    state.metered_p[static_cast<size_t>(owner)] =
        Metered(meter_, 4 * units.elements(), flat.mutable_data_ptr());
    units_.ViewGradients(stage, owner, flat, tensors);
  }
  return tensors;
}

GradientSums::Exponents GradientSums::OwnExponents(int stage) const {
  Exponents result(units_.Groups(stage), 0);
  const Stage& state = stages_[static_cast<size_t>(stage)];
  for (int owner = 0; owner < units_.parties(); ++owner) {
    const at::Tensor& flat = state.flat_p[static_cast<size_t>(owner)];
    if (!flat.defined()) continue;
    const float* values = flat.const_data_ptr<float>();
    for (const UnitTensor& unit : units_.Of(stage, owner).tensors) {
      for (size_t part = 0; part < unit.parts.size(); ++part) {
        const auto count = static_cast<size_t>(unit.parts[part]);
        uint8_t& exponent = result[unit.first_group + part];
        exponent = std::max(exponent, border::ExponentOf({values, count}));
        values += count;
      }
    }
  }
  return result;
}

absl::Status GradientSums::Close(int stage) {
  Stage& state = At(stage);
  const Exponents own = OwnExponents(stage);
  state.exponents_p[static_cast<size_t>(session_.self())] = own;
  state.closed = true;
  wire::Buffer payload = wire::Buffer::Allocate(own.size());
  std::copy(own.begin(), own.end(), payload.writable().begin());
  for (int peer = 0; peer < units_.parties(); ++peer) {
    if (peer == session_.self()) continue;
    PCMOE_RETURN_IF_ERROR(session_.Send(peer, wire::MessageKind::kExponents,
                                        static_cast<uint16_t>(stage), 0, payload));
  }
  waiting_.push_back(stage);
  PCMOE_RETURN_IF_ERROR(PostIfReady(stage));
  PCMOE_RETURN_IF_ERROR(DecodeIfReady(stage));
  while (waiting_.size() > kMaxWaiting) PCMOE_RETURN_IF_ERROR(SendOldest());
  return absl::OkStatus();
}

absl::Status GradientSums::OnExponents(wire::PartyIndex from, const wire::Message& message) {
  const int stage = message.header.layer;
  const auto bytes = message.payload.bytes();
  if (masks_ == nullptr || stage >= units_.stages() || bytes.empty() ||
      bytes.size() != units_.Groups(stage)) {
    return absl::InvalidArgumentError("exponents of a stage that has none");
  }
  Exponents& exponents = At(stage).exponents_p[static_cast<size_t>(from)];
  if (!exponents.empty())
    return absl::InvalidArgumentError("exponents of a stage for the second time");
  exponents.assign(bytes.begin(), bytes.end());
  if (std::find(bytes.begin(), bytes.end(), kNotFiniteExponent) != bytes.end()) {
    return session_.FailureStatus({from, AbortReason::kNotFinite});
  }
  PCMOE_RETURN_IF_ERROR(PostIfReady(stage));
  return DecodeIfReady(stage);
}

wire::PartyIndex GradientSums::MissingExponents(const Stage& stage) const {
  const auto missing = std::ranges::find_if(stage.exponents_p, &Exponents::empty);
  return missing == stage.exponents_p.end()
             ? -1
             : static_cast<wire::PartyIndex>(missing - stage.exponents_p.begin());
}

absl::StatusOr<GradientSums::Scales> GradientSums::ScalesFor(int stage, int owner) const {
  const Stage& state = stages_[static_cast<size_t>(stage)];
  Scales scales;
  for (size_t group = 0; group < units_.Groups(stage); ++group) {
    std::vector<uint8_t> exponents;
    for (int party = 0; party < units_.parties(); ++party) {
      if (party != owner) exponents.push_back(state.exponents_p[static_cast<size_t>(party)][group]);
    }
    PCMOE_ASSIGN_OR_RETURN(scales.emplace_back(),
                           border::FixedPoint::For(exponents, static_cast<int>(exponents.size())));
  }
  return scales;
}

absl::Status GradientSums::PostIfReady(int stage) {
  Stage& state = At(stage);
  if (!state.closed || state.posted || MissingExponents(state) >= 0) return absl::OkStatus();
  state.posted = true;
  const auto self = static_cast<size_t>(session_.self());
  // NOLINTNEXTLINE(bugprone-unchecked-optional-access): none is missing
  if (std::ranges::count(state.exponents_p[self], kNotFiniteExponent) > 0) {
    return session_.FailureStatus({session_.self(), AbortReason::kNotFinite});
  }
  for (int owner = 0; owner < units_.parties(); ++owner) {
    at::Tensor flat = std::move(state.flat_p[static_cast<size_t>(owner)]);
    if (!flat.defined()) continue;
    PCMOE_ASSIGN_OR_RETURN(Scales scales, ScalesFor(stage, owner));
    std::vector<wire::PartyIndex> peers;
    for (int party = 0; party < units_.parties(); ++party) {
      if (party != owner && party != session_.self()) peers.push_back(party);
    }
    background_.Post([this, stage, owner, scales = std::move(scales), peers = std::move(peers),
                      flat = std::move(flat),
                      metered = std::move(state.metered_p[static_cast<size_t>(owner)]),
                      step = session_.step()] {
      Share share{.stage = stage, .owner = owner};
      share.status = WriteShare(step, owner, scales, peers, flat.const_data_ptr<float>(), share);
      const std::lock_guard lock(done_.mutex);
      done_.shares.push_back(std::move(share));
    });
  }
  return absl::OkStatus();
}

// In the background thread: uses what does not change in a pass, and its arguments.
absl::Status GradientSums::WriteShare(uint64_t step, int owner, const Scales& scales,
                                      const std::vector<wire::PartyIndex>& peers,
                                      const float* values, Share& share) {
  const OwnedUnits& units = units_.Of(share.stage, owner);
  share.payload = wire::Buffer::Allocate(4 * static_cast<size_t>(units.elements()));
  auto* out = reinterpret_cast<uint32_t*>(share.payload.writable().data());
  std::vector<std::optional<border::MaskedWriter>> writers(scales.size());
  for (const UnitTensor& unit : units.tensors) {
    for (size_t part = 0; part < unit.parts.size(); ++part) {
      const size_t group = unit.first_group + part;
      if (!writers[group]) {
        PCMOE_ASSIGN_OR_RETURN(
            auto writer,
            border::MaskedWriter::Create(scales[group], rounding_,
                                         PlaceOf(step, share.stage, owner, group), peers, *masks_));
        writers[group].emplace(std::move(writer));
      }
      const auto count = static_cast<size_t>(unit.parts[part]);
      // NOLINTNEXTLINE(bugprone-unchecked-optional-access): made above
      PCMOE_RETURN_IF_ERROR(writers[group]->Append(values, count, out));
      values += count;
      out += count;
    }
  }
  return absl::OkStatus();
}

absl::Status GradientSums::SendDone(int stage) {
  std::vector<Share> shares;
  {
    const std::lock_guard lock(done_.mutex);
    const auto others = std::stable_partition(done_.shares.begin(), done_.shares.end(),
                                              [&](const Share& s) { return s.stage == stage; });
    std::move(done_.shares.begin(), others, std::back_inserter(shares));
    done_.shares.erase(done_.shares.begin(), others);
  }
  for (Share& share : shares) {
    PCMOE_RETURN_IF_ERROR(share.status);
    PCMOE_RETURN_IF_ERROR(session_.Send(share.owner, wire::MessageKind::kMaskedGradients,
                                        static_cast<uint16_t>(share.stage), 0,
                                        std::move(share.payload)));
  }
  return absl::OkStatus();
}

absl::Status GradientSums::SendOldest() {
  const Stage& oldest = At(waiting_.front());
  PCMOE_RETURN_IF_ERROR(session_.ServeUntil([&] { return MissingExponents(oldest) < 0; },
                                            [&] { return MissingExponents(oldest); }));
  background_.WaitIdle();
  PCMOE_RETURN_IF_ERROR(SendDone(waiting_.front()));
  waiting_.pop_front();
  return absl::OkStatus();
}

absl::Status GradientSums::OnMaskedGradients(wire::PartyIndex from, const wire::Message& message) {
  const int stage = message.header.layer;
  const auto bytes = message.payload.bytes();
  if (masks_ == nullptr || stage >= units_.stages()) {
    return absl::InvalidArgumentError("gradients of a stage that has none");
  }
  const OwnedUnits& units = units_.Of(stage, session_.self());
  Stage& state = At(stage);
  if (units.empty() || bytes.size() != 4 * static_cast<size_t>(units.elements()) ||
      state.received_p[static_cast<size_t>(from)]) {
    return absl::InvalidArgumentError("gradients of another length, or twice");
  }
  state.received_p[static_cast<size_t>(from)] = true;
  if (!state.sum.defined()) {
    state.sum = at::zeros({units.elements()}, at::kInt);
    state.metered_sum = Metered(meter_, 4 * units.elements(), state.sum.mutable_data_ptr());
  }
  border::AddInto(reinterpret_cast<uint32_t*>(state.sum.mutable_data_ptr<int32_t>()), bytes.data(),
                  static_cast<size_t>(units.elements()));
  return DecodeIfReady(stage);
}

wire::PartyIndex GradientSums::MissingGradients(const Stage& stage) const {
  for (int party = 0; party < units_.parties(); ++party) {
    if (party != session_.self() && !stage.received_p[static_cast<size_t>(party)]) return party;
  }
  return -1;
}

absl::Status GradientSums::DecodeIfReady(int stage) {
  Stage& state = At(stage);
  const OwnedUnits& units = units_.Of(stage, session_.self());
  if (units.empty() || !state.closed || state.decoded || MissingExponents(state) >= 0 ||
      MissingGradients(state) >= 0) {
    return absl::OkStatus();
  }
  PCMOE_ASSIGN_OR_RETURN(const Scales scales, ScalesFor(stage, session_.self()));
  StageTensors own = own_(stage);
  const auto* sum = reinterpret_cast<const uint32_t*>(state.sum.const_data_ptr<int32_t>());
  for (const UnitTensor& unit : units.tensors) {
    auto* gradient = units_.TensorOf(own, stage, unit).mutable_data_ptr<float>();
    for (size_t part = 0; part < unit.parts.size(); ++part) {
      const auto count = static_cast<size_t>(unit.parts[part]);
      border::DecodeSum(sum, count, scales[unit.first_group + part], gradient);
      sum += count;
      gradient += count;
    }
  }
  state.sum = at::Tensor();
  state.metered_sum.reset();
  state.decoded = true;
  return absl::OkStatus();
}

absl::Status GradientSums::Finish() {
  while (!waiting_.empty()) PCMOE_RETURN_IF_ERROR(SendOldest());
  const auto owed = [this]() -> wire::PartyIndex {
    for (int stage = 0; stage < units_.stages(); ++stage) {
      const Stage& state = stages_[static_cast<size_t>(stage)];
      if (units_.Of(stage, session_.self()).empty() || state.decoded) continue;
      const wire::PartyIndex missing = MissingExponents(state);
      return missing >= 0 ? missing : MissingGradients(state);
    }
    return -1;
  };
  PCMOE_RETURN_IF_ERROR(session_.ServeUntil([&] { return owed() < 0; }, owed));
  masks_ = nullptr;
  return absl::OkStatus();
}

}  // namespace pcmoe::exchange
