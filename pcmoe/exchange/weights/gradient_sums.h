// pcmoe/exchange/weights/gradient_sums.h: gradients of units on their way to the owners, under
// masks that cancel in the sum (DESIGN 3.3). The owner's own gradients never leave.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "pcmoe/border/fixed_point.h"
#include "pcmoe/exchange/session/session.h"
#include "pcmoe/exchange/weights/background.h"
#include "pcmoe/exchange/weights/byte_meter.h"
#include "pcmoe/exchange/weights/stage_units.h"

namespace pcmoe::exchange {

/// Stage by stage: Open gives the tensors to add gradients to, Close sends them on: first a byte of
/// size for each group of tensors, then, once everybody's are known, the masked
/// fixed-point share for each owner, made in a thread of its own. Shares leave at fixed points of
/// the pass, so that the order of messages tells nothing. As an owner it adds up the others' shares
/// and, when all are there, adds the sum to its own gradients. One closed stage waits while the
/// next is computed. Not thread-safe.
class GradientSums {
 public:
  /// Gives this party's own gradient tensors of a stage; those of others stay undefined.
  using OwnGradients = std::function<StageTensors(int stage)>;
  /// All outlive this. Registers itself with `session`.
  GradientSums(const StageUnits& units, Session& session, OwnGradients own,
               const border::RoundingKey& rounding, std::shared_ptr<ByteMeter> meter);

  /// A training pass starts; `masks` lives until Finish or Reset.
  void Begin(border::PairwiseMasks* masks);
  /// Zeroed tensors for the gradients of the stage, and the own ones as they are.
  StageTensors Open(int stage);
  /// The stage's gradients are complete here. An error when one is out of range or not finite.
  absl::Status Close(int stage);
  /// Until everything has left and every own unit has its sum. Failures name who is missing, or
  /// whose gradients are not finite.
  absl::Status Finish();
  /// Forgets a pass that was given up.
  void Reset();

 private:
  using Exponents = std::vector<uint8_t>;          // by group
  using Scales = std::vector<border::FixedPoint>;  // by group
  struct Stage {
    std::vector<at::Tensor> flat_p;  // fp32 gradients by owner, until they are masked
    std::vector<std::shared_ptr<void>> metered_p;
    std::vector<Exponents> exponents_p;  // empty: not here yet
    bool closed = false, posted = false, decoded = false;
    at::Tensor sum;  // int32, of own units
    std::shared_ptr<void> metered_sum;
    std::vector<bool> received_p;
  };
  struct Share {
    int stage = 0, owner = 0;
    wire::Buffer payload;
    absl::Status status;
  };
  // What the background thread hands back.
  struct Done {
    std::mutex mutex;
    std::vector<Share> shares;
  };

  absl::Status OnExponents(wire::PartyIndex from, const wire::Message& message);
  absl::Status OnMaskedGradients(wire::PartyIndex from, const wire::Message& message);
  absl::StatusOr<Scales> ScalesFor(int stage, int owner) const;
  absl::Status WriteShare(uint64_t step, int owner, const Scales& scales,
                          const std::vector<wire::PartyIndex>& peers, const float* values,
                          Share& share);
  absl::Status PostIfReady(int stage);
  absl::Status DecodeIfReady(int stage);
  absl::Status SendDone(int stage);
  absl::Status SendOldest();
  wire::PartyIndex MissingExponents(const Stage& stage) const;
  wire::PartyIndex MissingGradients(const Stage& stage) const;
  Exponents OwnExponents(int stage) const;
  Stage& At(int stage) { return stages_[static_cast<size_t>(stage)]; }

  const StageUnits& units_;
  Session& session_;
  const OwnGradients own_;
  const border::RoundingKey rounding_;
  const std::shared_ptr<ByteMeter> meter_;
  border::PairwiseMasks* masks_ = nullptr;
  std::vector<Stage> stages_;
  std::list<int> waiting_;  // closed, not sent yet, in their order
  Done done_;
  Background background_;  // last: its jobs use what is above
};

}  // namespace pcmoe::exchange
