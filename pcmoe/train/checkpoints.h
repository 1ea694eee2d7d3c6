// pcmoe/train/checkpoints.h: the folders checkpoint-<step> of one party: written whole or not at
// all.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "pcmoe/data/batch_source.h"
#include "pcmoe/train/party_model.h"

namespace pcmoe::train {

/// One entry of transformers' `log_history`: what was logged after `step` committed steps, by
/// transformers' names (loss, grad_norm, learning_rate, epoch, eval_loss, ..).
struct LogEntry {
  int64_t step = 0;
  std::map<std::string, double> values;
  bool operator==(const LogEntry&) const = default;
};

/// A checkpoint keeps at most this many entries, the newest; metrics.jsonl has them all.
inline constexpr size_t kMaxLogEntries = 4096;

/// What a checkpoint keeps besides tensors.
struct TrainerState {
  int64_t global_step = 0;            ///< Committed optimizer steps.
  std::vector<data::Cursor> cursors;  ///< Of each data source.
  std::string federation;  ///< As read: hex digest of the manifest; "" for a central run.
  double epoch = 0;        ///< Of the first data source that has data. Not read back.
  int64_t max_steps = 0;   ///< Not read back.
  std::vector<LogEntry> log_history = {};
};

/// A party's output_dir. One process at a time. A checkpoint's trainer_state.json is one that
/// transformers' TrainerState reads; what only pcmoe knows is beside it, in party_state.json.
class Checkpoints {
 public:
  Checkpoints(std::filesystem::path folder, std::string federation, int64_t total_limit);

  /// Removes what an interrupted write left. FAILED_PRECONDITION when a checkpoint here belongs to
  /// another federation.
  absl::Status Open();

  /// Steps of the finished checkpoints, ascending.
  std::vector<int64_t> Steps() const;

  /// Writes checkpoint-<step>: a temporary folder, fsync, rename. Replaces one of the same step.
  /// `experts` adds state of its own.
  absl::Status Save(const TrainerState& state, PartyModel& model, model::ExpertProvider& experts);
  absl::StatusOr<TrainerState> Load(int64_t step, PartyModel& model,
                                    model::ExpertProvider& experts) const;

  /// The weights of `step` alone, without Open: nothing in the folder is changed.
  /// FAILED_PRECONDITION when they belong to another federation.
  absl::Status LoadWeights(int64_t step, PartyModel& model) const;

  /// Removes checkpoints after `step`: their future was given up.
  absl::Status RemoveAfter(int64_t step);
  /// Keeps the newest `total_limit`, everything from `common_step` on, which all parties have, and
  /// `best_step` (-1: none).
  absl::Status Prune(int64_t common_step, int64_t best_step = -1);

 private:
  std::filesystem::path FolderOf(int64_t step) const;
  absl::StatusOr<TrainerState> ReadState(int64_t step) const;
  absl::Status CheckOwner(const TrainerState& state) const;
  absl::Status Retire(int64_t step);

  const std::filesystem::path folder_;
  const std::string federation_;
  const int64_t total_limit_;
};

}  // namespace pcmoe::train
