// pcmoe/cli/sim_process.cc: see sim_process.h.
#include "pcmoe/cli/sim_process.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/time/clock.h"
#include "pcmoe/base/file.h"

extern char** environ;  // NOLINT(readability-redundant-declaration): POSIX has it in no header

namespace pcmoe::cli {
namespace {

constexpr absl::Duration kPoll = absl::Milliseconds(100);
constexpr absl::Duration kGrace = absl::Seconds(10);  // between SIGTERM and SIGKILL
constexpr int kCannotStart = 127;                     // as a shell says it

// This process's environment with the threads of OpenMP set. They wait for each other by spinning,
// which on a machine that has other work costs up to ten times the run (measured: 1,100 tokens/s
// against 14,400), so they spin only shortly unless the user has said how to wait.
std::vector<std::string> EnvironmentFor(int64_t num_threads) {
  std::vector<std::string> variables;
  bool says_how_to_wait = false;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    if (absl::StartsWith(*entry, "OMP_NUM_THREADS=")) continue;
    says_how_to_wait |=
        absl::StartsWith(*entry, "OMP_WAIT_POLICY=") || absl::StartsWith(*entry, "GOMP_SPINCOUNT=");
    variables.emplace_back(*entry);
  }
  variables.push_back(absl::StrCat("OMP_NUM_THREADS=", num_threads));
  if (!says_how_to_wait) variables.emplace_back("GOMP_SPINCOUNT=1000");
  return variables;
}

std::vector<char*> Pointers(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (std::string& string : strings) pointers.push_back(string.data());
  pointers.push_back(nullptr);
  return pointers;
}

// Between fork and exec: only what is allowed in a signal handler.
[[noreturn]] void BecomeParty(pid_t parent, int log, char* const* arguments,
                              char* const* environment) {
  ::setpgid(0, 0);  // Ctrl-C reaches sim alone, which stops the parties in order
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(kCannotStart);  // it died before the line above
  const int null = ::open("/dev/null", O_RDWR);
  if (null < 0 || ::dup2(null, 0) < 0 || ::dup2(null, 1) < 0 || ::dup2(log, 2) < 0) {
    ::_exit(kCannotStart);
  }
  ::execve("/proc/self/exe", arguments, environment);
  ::_exit(kCannotStart);
}

// A party that broke down itself comes before those that only lost or awaited a peer.
int Rank(int wait_status) {
  if (WIFSIGNALED(wait_status)) return 5;
  switch (static_cast<ExitCode>(WEXITSTATUS(wait_status))) {
    case ExitCode::kBug:
      return 4;
    case ExitCode::kBadInput:
      return 3;
    case ExitCode::kConnection:
      return 1;
    case ExitCode::kTimeout:
      return 1;
    default:
      return 2;
  }
}

}  // namespace

std::string LastSentence(const std::string& text) {
  constexpr size_t kPrefix = std::char_traits<char>::length("pcmoe: ");
  size_t at = text.rfind("\npcmoe: ");
  if (at != std::string::npos) ++at;
  if (at == std::string::npos && absl::StartsWith(text, "pcmoe: ")) at = 0;
  if (at == std::string::npos) return "";
  return text.substr(at + kPrefix, text.find('\n', at) - at - kPrefix);
}

absl::Status StatusOfChild(const std::string& name, int wait_status, const std::string& sentence) {
  if (WIFSIGNALED(wait_status)) {
    return absl::AbortedError(absl::StrCat(name, ": killed by signal ", WTERMSIG(wait_status), " (",
                                           ::sigdescr_np(WTERMSIG(wait_status)), ")"));
  }
  const int code = WEXITSTATUS(wait_status);
  const std::string message = absl::StrCat(
      name, ": ",
      sentence.empty() ? absl::StrCat("ended with exit code ", code, " and no word") : sentence);
  switch (static_cast<ExitCode>(code)) {
    case ExitCode::kOk:
      return absl::OkStatus();
    case ExitCode::kConnection:
      return absl::UnavailableError(message);
    case ExitCode::kTimeout:
      return absl::DeadlineExceededError(message);
    case ExitCode::kBadInput:
      return absl::FailedPreconditionError(message);
    case ExitCode::kBug:
      return absl::InternalError(message);
    default:
      return absl::AbortedError(message);
  }
}

Children::~Children() { Stop(); }

absl::Status Children::Start(const ChildSpec& spec) {
  std::vector<std::string> arguments = {"pcmoe", "train", "--config", spec.config.string()};
  std::vector<std::string> environment = EnvironmentFor(spec.num_threads);
  const std::vector<char*> argument_pointers = Pointers(arguments);
  const std::vector<char*> environment_pointers = Pointers(environment);
  const int log = ::open(spec.log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (log < 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        spec.log.string(), ": cannot be written: ", std::generic_category().message(errno)));
  }
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid == 0) {
    BecomeParty(parent, log, argument_pointers.data(), environment_pointers.data());
  }
  const int error = errno;
  ::close(log);
  if (pid < 0) {
    return absl::ResourceExhaustedError(absl::StrCat(
        spec.name, ": no process could be started: ", std::generic_category().message(error)));
  }
  children_.push_back({spec, pid, 0});
  return absl::OkStatus();
}

// Takes over the exit status of those that have ended; true when one of them did not end well.
bool Children::Collect() {
  bool failed = false;
  for (Child& child : children_) {
    if (child.pid < 0 || ::waitpid(child.pid, &child.wait_status, WNOHANG) != child.pid) continue;
    child.pid = -1;
    failed |= child.wait_status != 0;
  }
  return failed;
}

bool Children::Running() const {
  return std::any_of(children_.begin(), children_.end(),
                     [](const Child& child) { return child.pid >= 0; });
}

const Children::Child* Children::Culprit() const {
  const Child* culprit = nullptr;
  for (const Child& child : children_) {
    if (child.pid >= 0 || child.wait_status == 0) continue;
    if (culprit == nullptr || Rank(child.wait_status) > Rank(culprit->wait_status)) {
      culprit = &child;
    }
  }
  return culprit;
}

void Children::Stop() {
  for (const Child& child : children_) {
    if (child.pid >= 0) ::kill(child.pid, SIGTERM);
  }
  const absl::Time kill_at = absl::Now() + kGrace;
  for (Collect(); Running() && absl::Now() < kill_at; Collect()) absl::SleepFor(kPoll);
  for (Child& child : children_) {
    if (child.pid < 0) continue;
    ::kill(child.pid, SIGKILL);
    ::waitpid(child.pid, &child.wait_status, 0);  // SIGKILL cannot be ignored
    child.pid = -1;
  }
}

absl::Status Children::Run(const std::function<bool()>& tick,
                           const std::function<bool()>& interrupted, absl::Duration stall) {
  absl::Time last_news = absl::Now();
  while (true) {
    const bool failed = Collect();
    if (tick()) last_news = absl::Now();
    if (failed) {
      const Child culprit = *Culprit();
      Stop();
      const auto text = base::ReadFile(culprit.spec.log);
      return StatusOfChild(culprit.spec.name, culprit.wait_status,
                           text.ok() ? LastSentence(*text) : "");
    }
    if (!Running()) return absl::OkStatus();
    if (interrupted()) {
      Stop();
      return absl::CancelledError("interrupted: all parties were stopped");
    }
    if (absl::Now() - last_news > stall) {
      Stop();
      return absl::DeadlineExceededError(
          absl::StrCat("no party wrote anything for ", absl::FormatDuration(stall),
                       ": all were stopped; --stall-timeout sets this wait"));
    }
    absl::SleepFor(kPoll);
  }
}

}  // namespace pcmoe::cli
