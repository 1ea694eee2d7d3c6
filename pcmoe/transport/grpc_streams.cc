// pcmoe/transport/grpc_streams.cc: see grpc_streams.h.
#include "pcmoe/transport/grpc_streams.h"

#include <grpcpp/client_context.h>
#include <grpcpp/generic/generic_stub.h>

#include <utility>

#include "absl/strings/escaping.h"
#include "pcmoe/base/log.h"
#include "pcmoe/transport/grpc_errors.h"

namespace pcmoe::transport {
namespace {

using wire::PartyIndex;

// In the first answer of a party that accepts the stream; a refusal has none.
constexpr char kAcceptedKey[] = "pcmoe-accepted";

class DialledStream final : public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>,
                            public Stream {
 public:
  DialledStream(Core* core, PartyIndex peer, std::function<void()> done)
      : core_(core),
        session_(std::make_shared<Session>(core, peer, this)),
        done_(std::move(done)) {}

  void Start(const std::shared_ptr<grpc::Channel>& channel) {
    core_->StreamStarted(this);
    grpc::GenericStub stub(channel);
    stub.PrepareBidiStreamingCall(&context_, MethodOf(core_->options().run), {}, this);
    AddHold();  // reads and writes start outside of callbacks; released by End
    StartCall();
  }

  void OnReadInitialMetadataDone(bool ok) override {
    if (ok && context_.GetServerInitialMetadata().contains(kAcceptedKey)) {
      session_->OnUp();
    } else {
      session_->EndStream(Ending::kIsOver);  // OnDone has the reason
    }
  }
  void OnReadDone(bool ok) override {
    session_->OnRead(ok);
    if (!ok) session_->EndStream(Ending::kIsOver);
  }
  void OnWriteDone(bool ok) override { session_->OnWritten(ok); }

  void OnDone(const grpc::Status& status) override {
    const PartyIndex peer = session_->peer();
    const absl::Status why = SentenceOf(core_->NameOf(peer), status, session_->was_up(),
                                        core_->options().keepalive_timeout);
    core_->Detach(session_.get(), why);
    if (!session_->was_up()) core_->NoteFailure(peer, why);
    done_();
    core_->StreamDone(this);
    delete this;
  }

  void Read(grpc::ByteBuffer* frame) override { StartRead(frame); }
  void Write(const grpc::ByteBuffer* frame) override { StartWrite(frame); }
  void End(Ending ending) override {
    if (ending == Ending::kAfterWrites) StartWritesDone();
    if (ending == Ending::kReset) context_.TryCancel();
    RemoveHold();
  }
  void Cancel() override { context_.TryCancel(); }

 private:
  Core* const core_;
  grpc::ClientContext context_;
  const std::shared_ptr<Session> session_;
  const std::function<void()> done_;
};

class AcceptedStream final : public grpc::ServerGenericBidiReactor, public Stream {
 public:
  AcceptedStream(Core* core, PartyIndex peer, grpc::GenericCallbackServerContext* context)
      : core_(core), context_(context), session_(std::make_shared<Session>(core, peer, this)) {
    core_->StreamStarted(this);
    context_->AddInitialMetadata(kAcceptedKey, "1");
    StartSendInitialMetadata();
  }

  void OnSendInitialMetadataDone(bool ok) override {
    if (ok) {
      session_->OnUp();
    } else {
      session_->EndStream(Ending::kReset);
    }
  }
  void OnReadDone(bool ok) override {
    session_->OnRead(ok);
    if (!ok) Lose();
  }
  void OnWriteDone(bool ok) override { session_->OnWritten(ok); }
  void OnCancel() override { Lose(); }
  void OnDone() override {
    core_->StreamDone(this);
    delete this;
  }

  void Read(grpc::ByteBuffer* frame) override { StartRead(frame); }
  void Write(const grpc::ByteBuffer* frame) override { StartWrite(frame); }
  void End(Ending ending) override {
    if (ending == Ending::kReset) context_->TryCancel();
    Finish(grpc::Status::OK);
  }
  void Cancel() override { context_->TryCancel(); }

 private:
  // gRPC does not tell a server why a stream broke. A peer heard of within the keepalive time
  // cannot have failed to answer it.
  void Lose() {
    const std::string& name = core_->NameOf(session_->peer());
    const GrpcChannelOptions& options = core_->options();
    absl::string_view what = "it closed the connection";
    std::string silent;
    if (context_->IsCancelled()) {
      what = "the connection was lost; its process or the network failed";
      if (session_->Silence() > options.keepalive_timeout) {
        silent = absl::StrCat(
            "no sign of life for ",
            absl::ToInt64Seconds(absl::Ceil(options.keepalive_timeout, absl::Seconds(1))),
            " s, or its process or the network failed");
        what = silent;
      }
    }
    // Ended before it is detached: OnUp, which may run now, attaches first and looks for the end
    // then. OnDone waits for this callback, so nothing is gone in between.
    session_->EndStream(Ending::kIsOver);
    core_->Detach(session_.get(), absl::UnavailableError(absl::StrCat(name, ": ", what)));
  }

  Core* const core_;
  grpc::GenericCallbackServerContext* const context_;
  const std::shared_ptr<Session> session_;
};

class RefusedStream final : public grpc::ServerGenericBidiReactor {
 public:
  explicit RefusedStream(grpc::StatusCode code) { Finish(grpc::Status(code, "")); }
  void OnDone() override { delete this; }
};

}  // namespace

std::string MethodOf(const wire::RunId& run) {
  const std::string bytes(run.begin(), run.end());
  return absl::StrCat("/pcmoe.v", wire::kFrameVersion, "/", absl::BytesToHexString(bytes));
}

void Dial(Core* core, PartyIndex peer, const std::shared_ptr<grpc::Channel>& channel,
          std::function<void()> done) {
  (new DialledStream(core, peer, std::move(done)))->Start(channel);
}

PartyIndex Listener::WhoIs(const grpc::GenericCallbackServerContext& context) const {
  const auto auth = context.auth_context();
  if (auth == nullptr || !auth->IsPeerAuthenticated()) return -1;
  for (const grpc::string_ref& name : auth->FindPropertyValues("x509_subject_alternative_name")) {
    for (PartyIndex party = 0; party < core_->options().self; ++party) {
      const std::string& identity = core_->options().parties[static_cast<size_t>(party)].identity;
      if (std::string_view(name.data(), name.size()) == identity) return party;
    }
  }
  return -1;
}

grpc::ServerGenericBidiReactor* Listener::CreateReactor(
    grpc::GenericCallbackServerContext* context) {
  const PartyIndex peer = WhoIs(*context);
  if (peer < 0) {
    base::LogWarning(
        "refused a connection: its certificate is of this authority, but names no party that may "
        "dial this one; check that all parties have the same manifest");
    return new RefusedStream(grpc::StatusCode::PERMISSION_DENIED);
  }
  const std::string method = MethodOf(core_->options().run);
  if (context->method() != method) {
    const bool is_pcmoe =
        std::string_view(context->method())
            .starts_with(std::string_view(method).substr(0, method.rfind('/') + 1));
    core_->NoteFailure(peer,
                       absl::UnauthenticatedError(absl::StrCat(
                           core_->NameOf(peer), ": it runs another manifest or another version")));
    return new RefusedStream(is_pcmoe ? grpc::StatusCode::FAILED_PRECONDITION
                                      : grpc::StatusCode::UNIMPLEMENTED);
  }
  return new AcceptedStream(core_, peer, context);
}

}  // namespace pcmoe::transport
