// pcmoe/audit/truth.h: what the victim kept of its own tokens, so that attacks can be scored. No
// attack takes a Truth: attacks see a View (view.h), scoring sees both. Shape legend: B sequences,
// S tokens of one, R rows of a message.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <span>
#include <tuple>
#include <vector>

#include "pcmoe/base/status.h"

namespace pcmoe::audit {

/// The file inside the folder of a truth.
inline constexpr char kTruthFile[] = "truth.bin";

/// One micro-batch of the victim.
struct TrueBatch {
  int64_t step = 0;
  int64_t micro_batch = 0;
  int64_t sequences = 0;        ///< B
  std::vector<int32_t> tokens;  ///< [B*S]
  std::vector<int32_t> labels;  ///< [B*S]; negative: no loss (not shifted: the token itself).
  int64_t length() const { return static_cast<int64_t>(tokens.size()) / sequences; }
};

/// Appends to FOLDER/truth.bin (folder 0700, file 0600) while the victim trains. A step that is run
/// again appends again: the reader keeps the last. Not thread-safe.
class TruthWriter {
 public:
  static absl::StatusOr<TruthWriter> Create(const std::filesystem::path& folder);
  void AddBatch(const TrueBatch& batch);
  /// Token (index into the micro-batch) of every row of a message, in its order, without padding.
  void AddRows(int64_t step, int64_t layer, int64_t micro_batch, int owner,
               std::span<const int64_t> token_r);
  /// DATA_LOSS when something could not be written.
  absl::Status Finish();

 private:
  explicit TruthWriter(std::ofstream file) : file_(std::move(file)) {}
  std::ofstream file_;
};

/// A victim's truth in memory. Immutable.
class Truth {
 public:
  /// DATA_LOSS naming the byte where the file stops being one; half a record at the end is left
  /// out.
  static absl::StatusOr<Truth> Load(const std::filesystem::path& path);

  using BatchKey = std::pair<int64_t, int64_t>;  ///< step, micro-batch
  const std::map<BatchKey, TrueBatch>& batches() const { return batches_; }
  /// The tokens' indices of a message's rows; empty when there was no such message.
  std::span<const int32_t> RowsOf(int64_t step, int64_t layer, int64_t micro_batch,
                                  int owner) const;

 private:
  std::map<BatchKey, TrueBatch> batches_;
  std::map<std::tuple<int64_t, int64_t, int64_t, int>, std::vector<int32_t>> rows_;
};

}  // namespace pcmoe::audit
