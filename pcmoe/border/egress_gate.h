// pcmoe/border/egress_gate.h: the only maker of messages that may leave: policy first, then ledger.
#pragma once

#include <memory>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "pcmoe/base/status.h"
#include "pcmoe/border/ledger.h"
#include "pcmoe/wire/message.h"

namespace pcmoe::border {

/// What may leave, and to whom; from the party's own config, never from a peer.
struct Policy {
  bool allow_readable_rows = false;  ///< Token rows and their gradients may go to expert owners.
  /// Kinds the operator forbids besides, per receiver name or "*" (config [border] forbid).
  std::set<std::pair<wire::PartyIndex, wire::MessageKind>> forbidden = {};
};

/// Checks every message against the policy and records it before it is sealed. Thread-safe.
class EgressGate {
 public:
  /// `ledger` may be null only in tests and in runs with a single party.
  EgressGate(Policy policy, std::unique_ptr<Ledger> ledger);

  /// PERMISSION_DENIED when the policy forbids the kind (kExpertRows, kExpertOutputs,
  /// kRowGradients, kInputGradients need allow_readable_rows); DATA_LOSS when the ledger cannot be
  /// written.
  absl::StatusOr<wire::Sealed> Release(wire::PartyIndex to, const wire::MessageHeader& header,
                                       wire::Buffer payload);

  /// Whether the policy lets `kind` go to `to`: what Release would say, before anything is made.
  absl::Status CheckPolicy(wire::PartyIndex to, wire::MessageKind kind) const;

  /// Makes the ledger durable; called when a step is committed or a checkpoint is cut.
  absl::Status SyncLedger();

  /// Bytes released so far to `to`, frame headers included: what the transport must have sent.
  uint64_t released_bytes(wire::PartyIndex to) const;

 private:
  const Policy policy_;
  mutable std::mutex mutex_;
  std::unique_ptr<Ledger> ledger_;        // guarded by mutex_
  std::vector<uint64_t> released_bytes_;  // guarded by mutex_
};

}  // namespace pcmoe::border
