// pcmoe/train/rendezvous.cc: see rendezvous.h.
#include "pcmoe/train/rendezvous.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <set>

namespace pcmoe::train {
namespace {

constexpr size_t kMaxCheckpoints = 4096;

// u32 count, then i64 steps: the steps that the sender can go on from.
wire::Buffer Encode(const std::set<int64_t>& steps) {
  wire::Buffer buffer = wire::Buffer::Allocate(4 + 8 * steps.size());
  uint8_t* data = buffer.writable().data();
  const auto count = static_cast<uint32_t>(steps.size());
  std::memcpy(data, &count, 4);
  size_t at = 4;
  for (const int64_t step : steps) {
    std::memcpy(data + at, &step, 8);
    at += 8;
  }
  return buffer;
}

std::optional<std::set<int64_t>> Decode(const wire::Buffer& buffer) {
  const auto bytes = buffer.bytes();
  uint32_t count = 0;
  if (bytes.size() < 4) return std::nullopt;
  std::memcpy(&count, bytes.data(), 4);
  if (count > kMaxCheckpoints || bytes.size() != 4 + 8 * static_cast<size_t>(count)) {
    return std::nullopt;
  }
  std::set<int64_t> steps;
  for (size_t i = 0; i < count; ++i) {
    int64_t step = 0;
    std::memcpy(&step, bytes.data() + 4 + 8 * i, 8);
    steps.insert(step);
  }
  return steps;
}

// One meeting's state: what was said for the current attempt.
class Table {
 public:
  Table(exchange::Session& session, std::set<int64_t> own, Intent intent)
      : session_(session),
        own_(std::move(own)),
        intent_(intent),
        intents_(static_cast<size_t>(session.parties()), intent),
        said_(static_cast<size_t>(session.parties())),
        refused_(said_.size()) {}

  void Start(uint32_t attempt) {
    attempt_ = attempt;
    std::fill(said_.begin(), said_.end(), std::nullopt);
    session_.LeaveStep(attempt);
    for (int peer = 0; peer < session_.parties(); ++peer) Greet(peer);
  }
  void Greet(int peer) {
    if (peer == session_.self() || !session_.IsUp(peer)) return;
    const absl::Status ignored = session_.Send(peer, wire::MessageKind::kHello, 0,
                                               static_cast<uint16_t>(intent_), Encode(own_));
  }
  // Takes what peers said; a newer attempt is joined.
  void Listen() {
    for (int peer = 0; peer < session_.parties(); ++peer) {
      if (peer == session_.self()) continue;
      const auto hello = session_.TakeHello(peer);
      if (!hello) continue;
      auto steps = Decode(hello->second);
      if (!steps) {
        session_.Drop(peer, absl::InvalidArgumentError("sent a hello that cannot be read"));
        continue;
      }
      if (hello->first.attempt < attempt_) {
        Greet(peer);  // it came back without having heard of this attempt
        continue;
      }
      if (hello->first.attempt > attempt_) Start(hello->first.attempt);
      said_[static_cast<size_t>(peer)] = std::move(steps);
      intents_[static_cast<size_t>(peer)] = static_cast<Intent>(hello->first.micro_batch);
    }
  }
  // Once all have spoken, whether or not they are still there: each finds out by itself.
  absl::Status CheckIntents() const {
    for (int peer = 0; peer < session_.parties(); ++peer) {
      if (peer != session_.self() && !said_[static_cast<size_t>(peer)]) return absl::OkStatus();
    }
    for (int peer = 0; peer < session_.parties(); ++peer) {
      const Intent other = intents_[static_cast<size_t>(peer)];
      if (other == intent_) continue;
      if (other == Intent::kExport || intent_ == Intent::kExport) {
        return absl::FailedPreconditionError(
            absl::StrCat("party ", session_.NameOf(peer), " runs pcmoe ",
                         other == Intent::kExport ? "export" : "train",
                         ", this one does not; all must run the same command"));
      }
      return absl::FailedPreconditionError(absl::StrCat(
          "party ", session_.NameOf(peer), other == Intent::kTrain ? " has no" : " has an",
          " [run] export_dir, unlike this one; set it at every party or at none, or run pcmoe "
          "export later"));
    }
    return absl::OkStatus();
  }
  void Forget(int peer) { said_[static_cast<size_t>(peer)].reset(); }
  bool Complete() const {
    for (int peer = 0; peer < session_.parties(); ++peer) {
      if (peer == session_.self()) continue;
      if (!session_.IsUp(peer) || !said_[static_cast<size_t>(peer)]) return false;
    }
    return true;
  }
  Meeting Result() const {
    int64_t best = 0;
    for (const int64_t step : own_) {
      bool all = true;
      for (int peer = 0; peer < session_.parties(); ++peer) {
        if (peer != session_.self()) all &= said_[static_cast<size_t>(peer)]->contains(step);
      }
      if (all) best = std::max(best, step);
    }
    return {best, attempt_};
  }
  // Keeps who is not who the manifest says, or does not accept this party: no wait heals that, and
  // once that party has given up, "connection refused" would be all that is left of the reason.
  void NoteRefusals() {
    for (int peer = 0; peer < session_.parties(); ++peer) {
      if (peer == session_.self()) continue;
      absl::Status status = session_.PeerStatus(peer);
      absl::Status& refused = refused_[static_cast<size_t>(peer)];
      if (status.ok() || absl::IsUnauthenticated(status)) refused = std::move(status);
    }
  }
  bool IsRefused() const {
    return std::any_of(refused_.begin(), refused_.end(),
                       [](const absl::Status& refused) { return !refused.ok(); });
  }
  std::string Missing() const {
    std::string missing;
    for (int peer = 0; peer < session_.parties(); ++peer) {
      if (peer == session_.self() || said_[static_cast<size_t>(peer)]) continue;
      absl::Status status = refused_[static_cast<size_t>(peer)];
      if (status.ok()) status = session_.PeerStatus(peer);
      absl::StrAppend(&missing, missing.empty() ? "" : ", ", session_.NameOf(peer), " (",
                      status.ok() ? "connected" : status.message(), ")");
    }
    return missing;
  }

 private:
  exchange::Session& session_;
  const std::set<int64_t> own_;
  const Intent intent_;
  std::vector<Intent> intents_;
  uint32_t attempt_ = 0;
  std::vector<std::optional<std::set<int64_t>>> said_;
  std::vector<absl::Status> refused_;
};

}  // namespace

absl::StatusOr<Meeting> Meet(exchange::Session& session, const Standing& standing,
                             absl::Duration timeout, const std::function<bool()>& interrupted,
                             const std::function<void(const std::string&)>& say) {
  std::set<int64_t> own(standing.checkpoint_steps.begin(), standing.checkpoint_steps.end());
  own.insert(0);
  if (standing.memory_step >= 0) own.insert(standing.memory_step);
  Table table(session, std::move(own), standing.intent);
  table.Start(session.attempt() + 1);
  const absl::Time begin = absl::Now();
  absl::Time next_line = begin + absl::Seconds(2);
  while (true) {
    table.Listen();
    table.NoteRefusals();
    PCMOE_RETURN_IF_ERROR(table.CheckIntents());
    if (table.Complete()) return table.Result();
    if (interrupted && interrupted()) return absl::CancelledError("interrupted by a signal");
    const absl::Time now = absl::Now();
    if (now > begin + timeout) {
      const std::string sentence = absl::StrCat(
          "not all parties came within rendezvous_timeout_s: waited for ", table.Missing());
      if (table.IsRefused()) return absl::UnauthenticatedError(sentence);
      return absl::DeadlineExceededError(sentence);
    }
    if (now > next_line) {
      say(absl::StrCat("waiting for ", table.Missing()));
      next_line = now + absl::Seconds(15);
    }
    std::vector<wire::PartyIndex> came_up;
    session.WaitForAnything(now + absl::Milliseconds(100), came_up);
    for (const wire::PartyIndex peer : came_up) {
      table.Forget(peer);
      table.Greet(peer);
    }
  }
}

}  // namespace pcmoe::train
