// pcmoe/transport/grpc_channel.h: channels between processes: gRPC streams under mutual TLS.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "pcmoe/transport/channel.h"
#include "pcmoe/wire/frame.h"

namespace pcmoe::transport {

/// A party as the others dial and recognise it.
struct GrpcParty {
  std::string name;  ///< For sentences.
  std::string host;  ///< Host name or IP address.
  uint16_t port = 0;
  std::string identity;  ///< DNS name its certificate must carry: Manifest::IdentityOf.
};

/// Plain data; everything but the times and sizes must be set.
struct GrpcChannelOptions {
  wire::PartyIndex self = 0;
  std::vector<GrpcParty> parties;
  std::string listen_host = "0.0.0.0";  ///< Interface of the one port, parties[self].port.
  std::string ca_pem;                   ///< Authority of this party and of all peers.
  std::string certificate_pem;
  std::string key_pem;
  wire::RunId run{};
  uint64_t max_message_bytes = uint64_t{1} << 30;
  /// Messages to one peer that wait to be sent; Send waits above that. One is always taken.
  uint64_t queue_bytes = uint64_t{256} << 20;
  /// Messages of one peer that wait for Next; above that nothing is read from it.
  uint64_t inbox_bytes = uint64_t{256} << 20;
  /// A silent peer is asked for a sign of life after `keepalive`, and is down when none has come
  /// within `keepalive_timeout`.
  absl::Duration keepalive = absl::Seconds(10);
  absl::Duration keepalive_timeout = absl::Seconds(10);
  absl::Duration redial = absl::Milliseconds(300);  ///< Between two attempts to reach a peer.
};

/// Listens on this party's port and dials every party after it in the list (of a pair, the one with
/// the lower index dials); so all may start in any order. TLS 1.2 or newer; both sides must show a
/// certificate of the authority with the identity of a party. FAILED_PRECONDITION when the port
/// cannot be listened on; INVALID_ARGUMENT when the options cannot work. Network failures later are
/// events and DescribePeer.
absl::StatusOr<std::unique_ptr<Channel>> CreateGrpcChannel(const GrpcChannelOptions& options);

}  // namespace pcmoe::transport
