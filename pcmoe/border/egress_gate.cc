// pcmoe/border/egress_gate.cc: see egress_gate.h.
#include "pcmoe/border/egress_gate.h"

#include "pcmoe/wire/frame.h"

namespace pcmoe::border {
namespace {

// More parties than any manifest may have; keeps a wrong index from becoming a large allocation.
constexpr wire::PartyIndex kMaxParties = 4096;

// Rows of tokens, and what is computed from them row by row, can be read back into text (DESIGN
// section 1); sums over many rows cannot be read row by row.
bool IsReadableRows(wire::MessageKind kind) {
  return kind == wire::MessageKind::kExpertRows || kind == wire::MessageKind::kExpertOutputs ||
         kind == wire::MessageKind::kRowGradients || kind == wire::MessageKind::kInputGradients;
}

}  // namespace

EgressGate::EgressGate(Policy policy, std::unique_ptr<Ledger> ledger)
    : policy_(std::move(policy)), ledger_(std::move(ledger)) {}

absl::Status EgressGate::CheckPolicy(wire::PartyIndex to, wire::MessageKind kind) const {
  const auto receiver = [&] {
    return ledger_ == nullptr ? absl::StrCat("party ", to) : ledger_->NameOfParty(to);
  };
  if (IsReadableRows(kind) && !policy_.allow_readable_rows) {
    return absl::PermissionDeniedError(absl::StrCat(
        "the border keeps ", std::string(NameOf(kind)), " from ", receiver(),
        ": its rows can be read back into text; write allow_readable_rows = true under [border] "
        "of this party's config to let them leave"));
  }
  if (policy_.forbidden.contains({to, kind})) {
    return absl::PermissionDeniedError(
        absl::StrCat("the border keeps ", std::string(NameOf(kind)), " from ", receiver(),
                     ": this party's policy forbids it ([border] forbid and policy)"));
  }
  return absl::OkStatus();
}

absl::StatusOr<wire::Sealed> EgressGate::Release(wire::PartyIndex to,
                                                 const wire::MessageHeader& header,
                                                 wire::Buffer payload) {
  if (to < 0 || to >= kMaxParties || NameOf(header.kind) == "unknown") {
    return absl::InternalError("a message without a receiver or a kind was handed to the border");
  }
  const std::lock_guard lock(mutex_);
  PCMOE_RETURN_IF_ERROR(CheckPolicy(to, header.kind));
  const uint64_t bytes = wire::FramedBytes(payload.size());
  if (ledger_ != nullptr) PCMOE_RETURN_IF_ERROR(ledger_->Append(to, header, bytes));
  const auto index = static_cast<size_t>(to);
  if (index >= released_bytes_.size()) released_bytes_.resize(index + 1);
  released_bytes_[index] += bytes;
  return wire::Sealed(to, {header, std::move(payload)});
}

absl::Status EgressGate::SyncLedger() {
  const std::lock_guard lock(mutex_);
  return ledger_ == nullptr ? absl::OkStatus() : ledger_->Sync();
}

uint64_t EgressGate::released_bytes(wire::PartyIndex to) const {
  const std::lock_guard lock(mutex_);
  const auto index = static_cast<size_t>(to);
  return to < 0 || index >= released_bytes_.size() ? 0 : released_bytes_[index];
}

}  // namespace pcmoe::border
