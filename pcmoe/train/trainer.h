// pcmoe/train/trainer.h: a party's whole run: meet, step, evaluate, checkpoint, and meet again
// after a failure.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "pcmoe/data/batch_source.h"
#include "pcmoe/federation/manifest.h"
#include "pcmoe/train/checkpoints.h"
#include "pcmoe/train/farewell.h"
#include "pcmoe/train/federated_step.h"
#include "pcmoe/train/model_export.h"
#include "pcmoe/train/run_report.h"

namespace pcmoe::train {

/// What a run works with; all outlive the trainer.
struct TrainerParts {
  const RunConfig& config;
  exchange::Session& session;
  model::ExpertProvider& experts;
  PartyModel& model;
  border::EgressGate* gate = nullptr;  ///< Null in a run of one party.
  std::vector<data::BatchSource>& sources;
  std::vector<std::string> eval_names;
  const std::vector<eval::EvalSet>& eval_sets;
  Checkpoints& checkpoints;
  RunReport& report;
  uint64_t schedule_seed = 0;
  uint64_t baseline_bytes = 0;  ///< Allocated before the model was: not its states.
  std::function<bool()> interrupted;
  /// Told of a step's own batches before it is run; null by default (`pcmoe audit` needs them).
  std::function<void(int64_t step, const std::vector<model::MicroBatch>&)> batches_observer;
  ModelExport* model_export = nullptr;  ///< Null: the run ends without an export, at all parties.
};

/// One thread runs it.
class Trainer {
 public:
  explicit Trainer(TrainerParts parts);

  /// Until max_steps are committed by all, or an error that the config does not wait out. The
  /// Status of a failed run is one sentence: who, what.
  absl::Status Run();

 private:
  absl::Status MeetAndRestore();
  bool CompleteOnDisk() const;
  absl::Duration RendezvousTimeout() const;
  absl::Status RunSteps();
  absl::Status RunOneStep();
  absl::Status Evaluate();
  absl::Status SaveIfDue();
  absl::Status Recover(const absl::Status& failure);
  std::vector<model::MicroBatch> NextBatches();
  std::vector<data::Cursor> Cursors() const;
  absl::Status Seek(const std::vector<data::Cursor>& cursors);
  absl::Status ShareMean(const eval::EvalResult& own);
  bool Due(int64_t every) const;
  bool StoppedEarly() const;
  std::optional<BestStep> Best() const;
  int64_t BestStepOr(int64_t none) const;
  double BalanceCoef() const;
  double Epoch() const;

  TrainerParts parts_;
  int64_t step_ = -1;  // committed; -1: not started
  uint32_t attempt_ = 0;
  int64_t failures_in_a_row_ = 0;
  int64_t evaluated_step_ = -1;
  int64_t transient_bytes_ = 0;  // most in a step
  Farewell farewell_;
};

}  // namespace pcmoe::train
