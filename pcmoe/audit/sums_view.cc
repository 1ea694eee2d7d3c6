// pcmoe/audit/sums_view.cc: see sums_view.h.
#include "pcmoe/audit/sums_view.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>

#include <cstring>
#include <set>
#include <string>

#include "pcmoe/border/fixed_point.h"

namespace pcmoe::audit {
namespace {

// The messages of one step's last attempt, by (kind, stage, from).
using StepMessages = std::map<std::tuple<wire::MessageKind, int64_t, int>, const Received*>;

StepMessages MessagesOf(const Member& member, int64_t step) {
  uint32_t last_attempt = 0;
  for (const Received& message : member.recording->messages()) {
    const wire::MessageHeader& header = message.record.header;
    if (static_cast<int64_t>(header.step) != step) continue;
    if (header.kind == wire::MessageKind::kMaskedGradients) {
      last_attempt = std::max(last_attempt, header.attempt);
    }
  }
  StepMessages messages;
  for (const Received& message : member.recording->messages()) {
    const wire::MessageHeader& header = message.record.header;
    if (static_cast<int64_t>(header.step) != step || header.attempt != last_attempt) continue;
    if ((header.layer & 0x8000) != 0) continue;  // evaluation
    messages[{header.kind, header.layer, message.record.from}] = &message;
  }
  return messages;
}

int64_t ElementsOf(const std::vector<UnitPart>& units) {
  int64_t elements = 0;
  for (const UnitPart& unit : units) {
    for (const int64_t part : unit.parts) elements += part;
  }
  return elements;
}

absl::Status Missing(absl::string_view what, int64_t step, size_t stage, int party) {
  return absl::FailedPreconditionError(absl::StrCat("the recording has no ", what, " of party ",
                                                    party, " for step ", step, ", stage ", stage,
                                                    "; it was cut off or is of another run"));
}

// Integers of a stage's sum over all others.
absl::StatusOr<std::vector<uint32_t>> SumOf(const StepMessages& messages, const Member& member,
                                            int parties, int64_t step, size_t stage,
                                            int64_t elements) {
  std::vector<uint32_t> sum(static_cast<size_t>(elements), 0);
  for (int party = 0; party < parties; ++party) {
    if (party == member.party) continue;
    const auto found =
        messages.find({wire::MessageKind::kMaskedGradients, static_cast<int64_t>(stage), party});
    if (found == messages.end()) return Missing("masked gradients", step, stage, party);
    const std::span<const uint8_t> payload = found->second->payload;
    if (payload.size() != sum.size() * sizeof(uint32_t)) {
      return absl::DataLossError(absl::StrCat("the masked gradients of party ", party, ", step ",
                                              step, ", stage ", stage,
                                              " are of another length than its units"));
    }
    for (size_t i = 0; i < sum.size(); ++i) {
      uint32_t word = 0;
      std::memcpy(&word, payload.data() + i * sizeof(word), sizeof(word));
      sum[i] += word;
    }
  }
  return sum;
}

absl::StatusOr<std::vector<border::FixedPoint>> ScalesOf(const StepMessages& messages,
                                                         const Member& member, int parties,
                                                         int64_t step, size_t stage,
                                                         const std::vector<UnitPart>& units) {
  size_t groups = 0;
  for (const UnitPart& unit : units)
    groups = std::max(groups, unit.first_group + unit.parts.size());
  std::vector<border::FixedPoint> scales;
  for (size_t group = 0; group < groups; ++group) {
    std::vector<uint8_t> exponents;
    for (int party = 0; party < parties; ++party) {
      if (party == member.party) continue;
      const auto found =
          messages.find({wire::MessageKind::kExponents, static_cast<int64_t>(stage), party});
      if (found == messages.end() || found->second->payload.size() <= group) {
        return Missing("exponents", step, stage, party);
      }
      exponents.push_back(found->second->payload[group]);
    }
    PCMOE_ASSIGN_OR_RETURN(scales.emplace_back(),
                           border::FixedPoint::For(exponents, static_cast<int>(exponents.size())));
  }
  return scales;
}

void Keep(const UnitPart& unit, size_t stage, size_t layers, const at::Tensor& values,
          ReleasedSum& released) {
  if (unit.expert < 0) {
    if (stage == layers) released.embedding_vd = values;
    return;
  }
  if (unit.entry == 0) {
    released.experts.push_back(
        {.layer = static_cast<int64_t>(stage), .id = unit.expert, .gate_up_fd = values});
  } else if (!released.experts.empty()) {
    released.experts.back().down_df = values;
  }
}

// D-wide rows of the first share of the first layer with experts, as plain integers.
at::Tensor RowsOfOneShare(const StepMessages& messages, const UnitLayout& layout, int64_t hidden) {
  for (size_t stage = 0; stage < layout.size(); ++stage) {
    if (layout[stage].empty() || layout[stage][0].expert < 0) continue;
    for (const auto& [key, message] : messages) {
      if (std::get<0>(key) != wire::MessageKind::kMaskedGradients) continue;
      if (std::get<1>(key) != static_cast<int64_t>(stage)) continue;
      const auto rows = static_cast<int64_t>(message->payload.size()) / 4 / hidden;
      at::Tensor values = at::empty({rows, hidden}, at::kInt);
      std::memcpy(values.mutable_data_ptr(), message->payload.data(),
                  static_cast<size_t>(4 * rows * hidden));
      return values.to(at::kFloat) * 0x1p-31F;
    }
  }
  return {};
}

}  // namespace

std::vector<int64_t> StepsWithSums(const Member& member) {
  std::set<int64_t> steps;
  for (const Received& message : member.recording->messages()) {
    if (message.record.header.kind == wire::MessageKind::kMaskedGradients) {
      steps.insert(static_cast<int64_t>(message.record.header.step));
    }
  }
  return {steps.begin(), steps.end()};
}

absl::StatusOr<ReleasedSum> ReadReleasedSum(const Member& member, const UnitLayout& layout,
                                            int parties, int64_t hidden, int64_t step) {
  const StepMessages messages = MessagesOf(member, step);
  ReleasedSum released{.step = step, .owner = member.party};
  for (const auto& [key, message] : messages) {
    if (std::get<0>(key) != wire::MessageKind::kBegin || message->payload.size() < 8) continue;
    int64_t tokens = 0;
    std::memcpy(&tokens, message->payload.data(), sizeof(tokens));
    released.loss_tokens += tokens;
  }
  for (size_t stage = 0; stage < layout.size(); ++stage) {
    if (layout[stage].empty()) continue;
    PCMOE_ASSIGN_OR_RETURN(
        const std::vector<uint32_t> sum,
        SumOf(messages, member, parties, step, stage, ElementsOf(layout[stage])));
    PCMOE_ASSIGN_OR_RETURN(const std::vector<border::FixedPoint> scales,
                           ScalesOf(messages, member, parties, step, stage, layout[stage]));
    const uint32_t* at = sum.data();
    for (const UnitPart& unit : layout[stage]) {
      at::Tensor values = at::empty(unit.shape);
      values.zero_();
      float* out = values.mutable_data_ptr<float>();
      for (size_t part = 0; part < unit.parts.size(); ++part) {
        const auto count = static_cast<size_t>(unit.parts[part]);
        border::DecodeSum(at, count, scales[unit.first_group + part], out);
        at += count;
        out += count;
      }
      Keep(unit, stage, layout.size() - 2, values, released);
    }
  }
  released.one_share_rd = RowsOfOneShare(messages, layout, hidden);
  return released;
}

}  // namespace pcmoe::audit
