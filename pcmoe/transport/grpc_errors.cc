// pcmoe/transport/grpc_errors.cc: see grpc_errors.h.
#include "pcmoe/transport/grpc_errors.h"

#include <grpc/support/log.h>

#include <atomic>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/time/clock.h"
#include "pcmoe/base/log.h"

namespace pcmoe::transport {
namespace {

struct Meaning {
  const char* fragment;  // of gRPC's or OpenSSL's text, lower case
  bool about_identity;
  const char* sentence;
};

constexpr char kRefused[] =
    "it closed the connection during the handshake, so it probably refused this party's "
    "certificate; give both parties folders from the same 'pcmoe provision' and check both clocks";

// The first match counts: causes come before the general words around them.
constexpr Meaning kMeanings[] = {
    {"certificate verify failed", true,
     "its certificate is not good for this party's ca.crt (another authority, or expired); give "
     "both parties folders from the same 'pcmoe provision'"},
    {"hostname verification", true,
     "its certificate carries another name; another party or service listens at its address"},
    {"not in peer certificate", true,
     "its certificate carries another name; another party or service listens at its address"},
    {"wrong version number", true,
     "it does not speak TLS; check host and port in the manifest and that pcmoe listens there"},
    // With TLS 1.3 a refusal arrives after the dialling side has finished its handshake.
    {"socket closed", true, kRefused},
    {"connection reset", true, kRefused},
    {"alert", true, kRefused},
    {"connection refused", false, "connection refused; it is not started yet"},
    {"dns resolution", false, "its host name cannot be resolved; check host in the manifest"},
    {"name resolution", false, "its host name cannot be resolved; check host in the manifest"},
    {"no route", false, "there is no route to its host; check the network"},
    {"unreachable", false, "its network is unreachable; check the network"},
    {"ssl handshake", true,
     "the TLS handshake failed; check that pcmoe listens at its host and port"},
    {"handshak", false, "it did not finish the TLS handshake; is it overloaded or stopped?"},
};

std::atomic<int64_t> last_warning_s{-1000};

void OnGrpcLog(gpr_log_func_args* args) {
  if (absl::StrContains(args->message, "assertion failed")) base::LogError(args->message);
  if (!absl::StrContains(absl::AsciiStrToLower(args->message), "handshake failed")) return;
  const int64_t now_s = absl::ToUnixSeconds(absl::Now());
  int64_t last_s = last_warning_s.load();
  if (now_s - last_s < 10 || !last_warning_s.compare_exchange_strong(last_s, now_s)) return;
  base::LogWarning(
      "a TLS handshake failed: the other side has no certificate of this federation, this party's "
      "certificate is not good for it, or one of the two does not speak TLS");
}

std::string Seconds(absl::Duration duration) {
  return absl::StrCat(absl::ToInt64Seconds(absl::Ceil(duration, absl::Seconds(1))), " s");
}

}  // namespace

absl::Status SentenceOf(const std::string& peer, const grpc::Status& status, bool was_up,
                        absl::Duration silence) {
  const auto say = [&](bool about_identity, absl::string_view sentence) {
    return absl::Status(
        about_identity ? absl::StatusCode::kUnauthenticated : absl::StatusCode::kUnavailable,
        absl::StrCat(peer, ": ", sentence));
  };
  if (status.error_code() == grpc::StatusCode::PERMISSION_DENIED) {
    return say(true, "it does not accept this party's certificate for its manifest");
  }
  if (status.error_code() == grpc::StatusCode::FAILED_PRECONDITION) {
    return say(true, "it runs another manifest; give all parties the same one");
  }
  if (status.error_code() == grpc::StatusCode::UNIMPLEMENTED) {
    return say(true, "it is not a pcmoe of this version");
  }
  const std::string reported = absl::AsciiStrToLower(status.error_message());
  if (absl::StrContains(reported, "keepalive")) {
    return say(false, absl::StrCat("no sign of life for ", Seconds(silence)));
  }
  if (was_up) {
    return say(false, status.ok() ? "it closed the connection"
                                  : "the connection was lost; its process or the network failed");
  }
  for (const Meaning& meaning : kMeanings) {
    if (absl::StrContains(reported, meaning.fragment)) {
      return say(meaning.about_identity, meaning.sentence);
    }
  }
  return say(false, "no connection; check that it runs, and its host and port in the manifest");
}

void CaptureGrpcLog() { gpr_set_log_function(OnGrpcLog); }

}  // namespace pcmoe::transport
