// pcmoe/transport/grpc_channel.cc: see grpc_channel.h.
#include "pcmoe/transport/grpc_channel.h"

#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "absl/strings/match.h"
#include "pcmoe/transport/grpc_errors.h"
#include "pcmoe/transport/grpc_streams.h"
#include "pcmoe/transport/wait.h"

namespace pcmoe::transport {
namespace {

using wire::PartyIndex;

constexpr int kMaxHeaderBytes = 16 << 10;
constexpr int kMaxStreams = 4;             // of one connection; a peer needs one
constexpr int kHttp2FrameBytes = 1 << 20;  // fewer, larger HTTP/2 frames cost less processor time
// Unread bytes a stream may send at first; gRPC's 64 KiB would fill a link of 20 ms only after some
// round trips.
constexpr int kLookaheadBytes = 4 << 20;
constexpr int kConnectTimeoutMs = 5000;

int Milliseconds(absl::Duration duration) {
  return static_cast<int>(std::clamp<int64_t>(absl::ToInt64Milliseconds(duration), 1, 1 << 30));
}

// What both sides set; `set` is called with a name and a value.
template <typename Set>
void SetCommonArguments(const GrpcChannelOptions& options, Set set) {
  set(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, static_cast<int>(wire::kMaxFrameBytes));
  set(GRPC_ARG_MAX_SEND_MESSAGE_LENGTH, static_cast<int>(wire::kMaxFrameBytes));
  set(GRPC_ARG_KEEPALIVE_TIME_MS, Milliseconds(options.keepalive));
  set(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, Milliseconds(options.keepalive_timeout));
  set(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  set(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);
  set(GRPC_ARG_HTTP2_MIN_SENT_PING_INTERVAL_WITHOUT_DATA_MS, Milliseconds(options.keepalive));
  set(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 100);
  set(GRPC_ARG_TCP_TX_ZEROCOPY_ENABLED, 0);  // CVE-2024-11407
  set(GRPC_ARG_MAX_METADATA_SIZE, kMaxHeaderBytes);
  set(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, kHttp2FrameBytes);
  set(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, kLookaheadBytes);
  set(GRPC_ARG_ENABLE_CHANNELZ, 0);
}

std::string AddressOf(const std::string& host, uint16_t port) {
  const bool is_ipv6 = absl::StrContains(host, ":");
  return absl::StrCat(is_ipv6 ? "[" : "", host, is_ipv6 ? "]:" : ":", port);
}

std::shared_ptr<grpc::Channel> MakeGrpcChannel(const GrpcChannelOptions& options,
                                               const GrpcParty& peer) {
  grpc::SslCredentialsOptions tls;
  tls.pem_root_certs = options.ca_pem;
  tls.pem_cert_chain = options.certificate_pem;
  tls.pem_private_key = options.key_pem;
  grpc::ChannelArguments arguments;
  // The certificate must carry the party's name, whatever the address it was reached at.
  arguments.SetSslTargetNameOverride(peer.identity);
  SetCommonArguments(options, [&](const char* name, int value) { arguments.SetInt(name, value); });
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);     // would keep copies of what was sent
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);  // an environment variable must not redirect us
  arguments.SetInt(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, Milliseconds(options.redial));
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, Milliseconds(3 * options.redial));
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kConnectTimeoutMs);
  return grpc::CreateCustomChannel("dns:///" + AddressOf(peer.host, peer.port),
                                   grpc::SslCredentials(tls), arguments);
}

// gRPC 1.51 aborts ("prior > 0" in grpc_cq_internal_unref) when the last user of its callback queue
// goes and a new one comes at the same time. One call on a channel that is never freed, and that
// leads nowhere, keeps the queue for the life of the process.
void KeepCallbackQueue() {
  struct Call {
    grpc::ClientContext context;
    grpc::ByteBuffer request;
    grpc::ByteBuffer answer;
  };
  static std::once_flag once;
  static std::atomic<const void*> kept;  // atomic, or the compiler drops the last pointer to it
  std::call_once(once, [] {
    auto* const nowhere =
        new std::shared_ptr<grpc::Channel>(grpc::CreateChannel("nowhere", nullptr));
    const auto call = std::make_shared<Call>();
    const grpc::Slice nothing("");
    call->request = grpc::ByteBuffer(&nothing, 1);
    grpc::GenericStub(*nowhere).UnaryCall(&call->context, "/nothing", {}, &call->request,
                                          &call->answer, [call](const grpc::Status&) {});
    kept = nowhere;
  });
}

class GrpcChannel final : public Channel {
 public:
  explicit GrpcChannel(const GrpcChannelOptions& options)
      : core_(options), listener_(&core_), dial_at_(options.parties.size(), absl::InfinitePast()) {}
  ~GrpcChannel() override { Close(absl::InfinitePast()); }

  absl::Status Start();

  int parties() const override { return static_cast<int>(core_.options().parties.size()); }
  PartyIndex self() const override { return core_.options().self; }
  absl::Status Send(wire::Sealed message, absl::Time deadline) override {
    return core_.Send(std::move(message), deadline);
  }
  std::optional<Event> Next(absl::Time deadline) override { return core_.Next(deadline); }
  void Drop(PartyIndex peer, const absl::Status& why) override {
    if (const auto session = core_.SessionOf(peer)) session->Fail(why);
  }
  absl::Status PeerStatus(PartyIndex peer) const override { return core_.PeerStatus(peer); }
  Traffic TrafficWith(PartyIndex peer) const override { return core_.TrafficWith(peer); }
  void Close(absl::Time deadline) override;

 private:
  void DialLoop();
  void DialDone(PartyIndex peer);

  Core core_;
  Listener listener_;
  std::unique_ptr<grpc::Server> server_;
  std::vector<std::shared_ptr<grpc::Channel>> channels_;  // null for peers that dial us

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<absl::Time>
      dial_at_;           // guarded by mutex_; infinite future: a stream is up or dialled
  bool closing_ = false;  // guarded by mutex_
  std::once_flag closed_;
  std::thread dialler_;
};

absl::Status GrpcChannel::Start() {
  const GrpcChannelOptions& options = core_.options();
  const GrpcParty& self_party = options.parties[static_cast<size_t>(options.self)];
  grpc::SslServerCredentialsOptions tls(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  tls.pem_root_certs = options.ca_pem;
  tls.pem_key_cert_pairs.push_back({options.key_pem, options.certificate_pem});
  const std::string address = AddressOf(options.listen_host, self_party.port);
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(address, grpc::SslServerCredentials(tls), &port);
  builder.RegisterCallbackGenericService(&listener_);
  SetCommonArguments(options,
                     [&](const char* name, int value) { builder.AddChannelArgument(name, value); });
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxStreams);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);  // two processes must not share a port
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kConnectTimeoutMs);
  server_ = builder.BuildAndStart();
  if (server_ == nullptr || port == 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(self_party.name, ": cannot listen on ", address,
                     "; is another process using the port, or are key and certificate damaged?"));
  }
  channels_.resize(options.parties.size());
  for (size_t peer = 0; peer < options.parties.size(); ++peer) {
    if (static_cast<PartyIndex>(peer) > options.self) {
      channels_[peer] = MakeGrpcChannel(options, options.parties[peer]);
    } else {
      dial_at_[peer] = absl::InfiniteFuture();
    }
  }
  dialler_ = std::thread([this] { DialLoop(); });
  return absl::OkStatus();
}

void GrpcChannel::DialLoop() {
  std::unique_lock lock(mutex_);
  while (!closing_) {
    const auto earliest = std::ranges::min_element(dial_at_);
    if (*earliest > absl::Now()) {
      WaitUntil(changed_, lock, *earliest);
      continue;
    }
    *earliest = absl::InfiniteFuture();
    const auto peer = static_cast<PartyIndex>(earliest - dial_at_.begin());
    // Without the lock, which DialDone takes; so times may change and are all looked at again.
    lock.unlock();
    Dial(&core_, peer, channels_[static_cast<size_t>(peer)], [this, peer] { DialDone(peer); });
    lock.lock();
  }
}

void GrpcChannel::DialDone(PartyIndex peer) {
  const std::lock_guard lock(mutex_);
  dial_at_[static_cast<size_t>(peer)] = absl::Now() + core_.options().redial;
  changed_.notify_all();
}

void GrpcChannel::Close(absl::Time deadline) {
  std::call_once(closed_, [&] {
    {
      const std::lock_guard lock(mutex_);
      closing_ = true;
      changed_.notify_all();
    }
    if (dialler_.joinable()) dialler_.join();
    core_.Flush(deadline);
    core_.Stop();
    for (PartyIndex peer = 0; peer < parties(); ++peer) {
      if (const auto session = core_.SessionOf(peer)) {
        session->EndStream(deadline > absl::Now() ? Stream::Ending::kAfterWrites
                                                  : Stream::Ending::kReset);
      }
    }
    core_.WaitForStreams(deadline);
    channels_.clear();
    if (server_ != nullptr) {
      server_->Shutdown(std::chrono::system_clock::now());
      server_->Wait();
    }
  });
}

absl::Status CheckOptions(const GrpcChannelOptions& options) {
  const auto parties = static_cast<PartyIndex>(options.parties.size());
  if (options.self < 0 || options.self >= parties) {
    return absl::InvalidArgumentError("transport: this party is not in the list of parties");
  }
  if (options.ca_pem.empty() || options.certificate_pem.empty() || options.key_pem.empty()) {
    return absl::InvalidArgumentError(
        "transport: authority, certificate and key are all needed; there is no mode without TLS");
  }
  for (const GrpcParty& party : options.parties) {
    if (party.host.empty() || party.port == 0 || party.identity.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("transport: party '", party.name, "' lacks a host, a port or an identity"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Channel>> CreateGrpcChannel(const GrpcChannelOptions& options) {
  PCMOE_RETURN_IF_ERROR(CheckOptions(options));
  CaptureGrpcLog();
  KeepCallbackQueue();
  auto channel = std::make_unique<GrpcChannel>(options);
  PCMOE_RETURN_IF_ERROR(channel->Start());
  return std::unique_ptr<Channel>(std::move(channel));
}

}  // namespace pcmoe::transport
