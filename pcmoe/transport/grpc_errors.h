// pcmoe/transport/grpc_errors.h: what gRPC reports, as sentences that say what to check.
#pragma once

#include <grpcpp/support/status.h>

#include <string>
#include <string_view>

#include "absl/time/time.h"
#include "pcmoe/base/status.h"

namespace pcmoe::transport {

/// Why a connection to a peer could not be made or was lost. UNAUTHENTICATED for certificates, else
/// UNAVAILABLE. Only constant text: what the peer itself wrote is not repeated. `was_up`: the
/// connection had stood before.
absl::Status SentenceOf(const std::string& peer, const grpc::Status& status, bool was_up,
                        absl::Duration silence);

/// Sends gRPC's own log through ours: nothing but one warning, at most every ten seconds, about
/// handshakes that failed on our port. Call before anything of gRPC; idempotent.
void CaptureGrpcLog();

}  // namespace pcmoe::transport
