// pcmoe/train/rendezvous.h: how parties find each other, at the start and after a failure, and
// agree on the step to go on from.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/time/time.h"
#include "pcmoe/exchange/session/session.h"

namespace pcmoe::train {

/// What a party is here for; in the micro_batch of its hello. All must want the same.
enum class Intent : uint16_t {
  kTrain = 0,
  kTrainAndExport = 1,  ///< `[run] export_dir`.
  kExport = 2,          ///< `pcmoe export`.
};

/// What a party can go on from.
struct Standing {
  std::vector<int64_t> checkpoint_steps;  ///< Durable; 0 (the start) is always possible besides.
  int64_t memory_step = -1;               ///< The committed step in memory; -1: just started.
  Intent intent = Intent::kTrain;
};

/// Where everybody goes on.
struct Meeting {
  int64_t step = 0;      ///< The newest step that every party has; 0: the start.
  uint32_t attempt = 0;  ///< Carried by every message until the next meeting.
};

/// Waits until all parties are connected and have said hello for the same attempt (which is larger
/// than every attempt before). DEADLINE_EXCEEDED naming who is missing and why, UNAUTHENTICATED
/// when one of them is not who the manifest says; FAILED_PRECONDITION naming a party that is here
/// for something else; CANCELLED when interrupted. `say` gets a line for the operator, now and
/// then.
absl::StatusOr<Meeting> Meet(exchange::Session& session, const Standing& standing,
                             absl::Duration timeout, const std::function<bool()>& interrupted,
                             const std::function<void(const std::string&)>& say);

}  // namespace pcmoe::train
