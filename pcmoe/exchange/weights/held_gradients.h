// pcmoe/exchange/weights/held_gradients.h: gradients of experts that too few rows reached: each
// party keeps its own until the federation's rows are enough (DESIGN 3.3, min_rows).
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <vector>

#include "pcmoe/base/status.h"
#include "pcmoe/model/config.h"

namespace pcmoe::exchange {

/// Every party decides alike, from the federation's row counts. What a step holds counts from its
/// commit on. Not thread-safe.
class HeldGradients {
 public:
  /// `min_rows` <= 0: nothing is ever held.
  HeldGradients(const model::ModelConfig& config, int64_t min_rows);

  /// The federation's rows of the step, [layer][expert] (empty for layers without experts).
  void Decide(const std::vector<std::vector<int64_t>>& rows_le);
  /// Whether the expert's gradients leave in this step.
  bool Releases(int64_t layer, int64_t expert) const;
  /// This party's gradients of the expert in this step, in place: those held before are added when
  /// it is released; else they are kept here, and zeros are left.
  void Apply(int64_t layer, int64_t expert, at::Tensor& gate_up_fd, at::Tensor& down_df);
  /// The step was committed; or was given up.
  void Commit();
  void Reset();
  /// Nothing is held (a run starts from the beginning).
  void Clear();

  /// Experts held now, of all layers.
  int64_t held() const;
  /// Into, and from, a checkpoint folder, bit for bit.
  absl::Status Save(const std::filesystem::path& folder) const;
  absl::Status Load(const std::filesystem::path& folder);

 private:
  struct Kept {
    at::Tensor gate_up_fd, down_df;
  };
  using Key = std::pair<int64_t, int64_t>;  // layer, expert
  bool off() const { return min_rows_ <= 0; }

  const model::ModelConfig config_;
  const int64_t min_rows_;
  std::vector<std::vector<int64_t>> rows_le_;  // held, of the federation
  std::map<Key, Kept> kept_;
  std::vector<std::vector<int64_t>> next_rows_le_;
  std::map<Key, Kept> next_kept_;  // of the step under way; a released one has no entry
};

}  // namespace pcmoe::exchange
