// pcmoe/exchange/weights/stage_fetcher.h: the weights of a pass, stage by stage: what others own
// comes, what this party owns goes, one stage ahead of the compute.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "pcmoe/exchange/session/session.h"
#include "pcmoe/exchange/weights/byte_meter.h"
#include "pcmoe/exchange/weights/stage_units.h"

namespace pcmoe::exchange {

/// One use of a stage's weights in a pass.
struct Visit {
  int stage = 0;
  int number = 0;  ///< Tells the visits of one stage apart; the message's micro-batch.
};

/// Everybody goes through the same visits, so owners send without being asked: the weights of visit
/// i + 1 when they come to visit i. Nobody is more than one visit ahead of what it was sent, so at
/// most three stages are ever here. Not thread-safe.
class StageFetcher {
 public:
  /// Gives this party's own weights of a stage, in the dtype that travels.
  using OwnWeights = std::function<StageTensors(int stage)>;
  /// All outlive this.
  StageFetcher(const StageUnits& units, Session& session, OwnWeights own,
               std::shared_ptr<ByteMeter> meter)
      : units_(units), session_(session), own_(std::move(own)), meter_(std::move(meter)) {}

  /// A pass over `visits` with the weights of `version` (committed steps) starts.
  void Begin(std::vector<Visit> visits, uint64_t version);
  /// The tensors of the next visit, which must be to `stage`. They live as long as they are held. A
  /// failure naming the owner whose message does not fit, has another version, or holds a weight
  /// that is not finite.
  absl::StatusOr<StageTensors> Next(int stage);
  /// Goes through the visits that are left, for the others' sake.
  absl::Status Drain();

 private:
  absl::Status Push(const Visit& visit);
  bool AllFinite(const Visit& visit, int owner, StageTensors& tensors) const;

  const StageUnits& units_;
  Session& session_;
  const OwnWeights own_;
  const std::shared_ptr<ByteMeter> meter_;
  std::vector<Visit> visits_;
  uint64_t version_ = 0;
  size_t at_ = 0;
  size_t pushed_ = 0;
};

}  // namespace pcmoe::exchange
