// pcmoe/train/checkpoints.h: the folders checkpoint-<step> of one party: written whole or not at
// all.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "pcmoe/data/batch_source.h"
#include "pcmoe/train/party_model.h"

namespace pcmoe::train {

/// What a checkpoint keeps besides tensors.
struct TrainerState {
  int64_t global_step = 0;            ///< Committed optimizer steps.
  std::vector<data::Cursor> cursors;  ///< Of each data source.
  std::string federation;  ///< As read: hex digest of the manifest; "" for a central run.
};

/// A party's output_dir. One process at a time.
class Checkpoints {
 public:
  Checkpoints(std::filesystem::path folder, std::string federation, int64_t total_limit);

  /// Removes what an interrupted write left. FAILED_PRECONDITION when a checkpoint here belongs to
  /// another federation.
  absl::Status Open();

  /// Steps of the finished checkpoints, ascending.
  std::vector<int64_t> Steps() const;

  /// Writes checkpoint-<step>: a temporary folder, fsync, rename. Replaces one of the same step.
  absl::Status Save(const TrainerState& state, PartyModel& model);
  absl::StatusOr<TrainerState> Load(int64_t step, PartyModel& model) const;

  /// Removes checkpoints after `step`: their future was given up.
  absl::Status RemoveAfter(int64_t step);
  /// Keeps the newest `total_limit`, and everything from `common_step` on, which all parties have.
  absl::Status Prune(int64_t common_step);

 private:
  std::filesystem::path FolderOf(int64_t step) const;
  absl::StatusOr<TrainerState> ReadState(int64_t step) const;
  absl::Status Retire(int64_t step);

  const std::filesystem::path folder_;
  const std::string federation_;
  const int64_t total_limit_;
};

}  // namespace pcmoe::train
