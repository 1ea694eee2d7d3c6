// pcmoe/transport/test_parties.h: certificates, ports and messages for the tests of this folder.
#pragma once

#include <string>
#include <vector>

#include "pcmoe/border/egress_gate.h"
#include "pcmoe/provision/certificate.h"
#include "pcmoe/transport/grpc_channel.h"

namespace pcmoe::transport {

inline constexpr wire::RunId kTestRun = {7, 1};

/// A port of this machine that nobody uses now.
uint16_t FreePort();

/// Parties "a", "b", .. on free ports, with a certificate each.
class TestParties {
 public:
  explicit TestParties(int parties);
  /// The same parties in another process: what Save wrote to `folder`.
  explicit TestParties(const std::string& folder);
  void Save(const std::string& folder) const;
  /// Options that work, with short times; change what the test is about.
  GrpcChannelOptions Options(wire::PartyIndex self) const;
  const provision::KeyAndCertificate& authority() const { return authority_; }
  /// A certificate by `authority` with the one name `identity`, valid from and for.
  static provision::KeyAndCertificate Issue(const provision::KeyAndCertificate& authority,
                                            const std::string& identity, absl::Time from,
                                            absl::Duration validity);

 private:
  provision::KeyAndCertificate authority_;
  std::vector<GrpcParty> parties_;
  std::vector<provision::KeyAndCertificate> certificates_;
};

/// A message past the border: `bytes` of a pattern made from `seed`.
wire::Sealed TestMessage(border::EgressGate& gate, wire::PartyIndex to, uint64_t step, size_t bytes,
                         uint32_t seed = 1);
bool HasPattern(const wire::Buffer& payload, uint32_t seed);

/// The next event within ten seconds that is of `kind`; others before it are skipped.
std::optional<Event> NextOf(Channel& channel, Event::Kind kind,
                            absl::Duration patience = absl::Seconds(10));

/// Waits until `channel` has seen every peer come up.
bool AllUp(Channel& channel);

}  // namespace pcmoe::transport
