// pcmoe/transport/grpc_streams.h: the two ends of a gRPC stream: dialled and accepted.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/generic/async_generic_service.h>

#include <functional>
#include <memory>
#include <string>

#include "pcmoe/transport/grpc_session.h"

namespace pcmoe::transport {

/// The one method; a peer with another run is told so by it.
std::string MethodOf(const wire::RunId& run);

/// Opens a stream to `peer` over `channel`. `done` is called once, when the stream is over and
/// another may be dialled. The stream deletes itself.
void Dial(Core* core, wire::PartyIndex peer, const std::shared_ptr<grpc::Channel>& channel,
          std::function<void()> done);

/// Accepts streams from parties that may dial this one, by the identity in their certificates.
class Listener : public grpc::CallbackGenericService {
 public:
  explicit Listener(Core* core) : core_(core) {}
  grpc::ServerGenericBidiReactor* CreateReactor(
      grpc::GenericCallbackServerContext* context) override;

 private:
  /// The party of the certificate; -1 when it is none that dials us.
  wire::PartyIndex WhoIs(const grpc::GenericCallbackServerContext& context) const;
  Core* const core_;
};

}  // namespace pcmoe::transport
