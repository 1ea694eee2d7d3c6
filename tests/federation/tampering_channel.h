// tests/federation/tampering_channel.h: a peer that breaks the rules: an honest party behind a
// channel that changes, drops or adds what it says.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "pcmoe/border/egress_gate.h"
#include "pcmoe/transport/channel.h"

namespace pcmoe::testing_federation {

/// A message before it is sealed.
using Draft = std::pair<wire::MessageHeader, wire::Buffer>;

/// What is sent to `to` in place of `draft`. Called by the party's thread only.
using Tamper = std::function<std::vector<Draft>(wire::PartyIndex to, const Draft& draft)>;

/// Everything else goes to `inner`.
class TamperingChannel final : public transport::Channel {
 public:
  TamperingChannel(std::unique_ptr<transport::Channel> inner, Tamper tamper)
      : inner_(std::move(inner)), tamper_(std::move(tamper)) {}
  int parties() const override { return inner_->parties(); }
  wire::PartyIndex self() const override { return inner_->self(); }
  absl::Status Send(wire::Sealed message, absl::Time deadline) override {
    for (auto& [header, payload] : tamper_(message.to(), {message.header(), message.payload()})) {
      auto sealed = gate_.Release(message.to(), header, std::move(payload));
      if (!sealed.ok()) return sealed.status();
      if (absl::Status sent = inner_->Send(*std::move(sealed), deadline); !sent.ok()) return sent;
    }
    return absl::OkStatus();
  }
  std::optional<transport::Event> Next(absl::Time deadline) override {
    return inner_->Next(deadline);
  }
  void Drop(wire::PartyIndex peer, const absl::Status& why) override { inner_->Drop(peer, why); }
  absl::Status PeerStatus(wire::PartyIndex peer) const override { return inner_->PeerStatus(peer); }
  transport::Traffic TrafficWith(wire::PartyIndex peer) const override {
    return inner_->TrafficWith(peer);
  }
  void Close(absl::Time deadline) override { inner_->Close(deadline); }

 private:
  std::unique_ptr<transport::Channel> inner_;
  const Tamper tamper_;
  border::EgressGate gate_{{.allow_readable_rows = true}, nullptr};
};

}  // namespace pcmoe::testing_federation
