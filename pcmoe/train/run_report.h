// pcmoe/train/run_report.h: what a run tells people: a line on stderr, JSON lines in a file,
// TensorBoard's events, a summary.
#pragma once

#include <cstdio>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "pcmoe/base/status.h"
#include "pcmoe/eval/eval_set.h"
#include "pcmoe/train/checkpoints.h"
#include "pcmoe/train/event_file.h"

namespace pcmoe::train {

/// One committed step, for the log. Names in the file are transformers'.
struct StepRecord {
  int64_t step = 0;
  double epoch = 0;
  double loss = 0;  ///< Mean cross entropy of this party's own tokens; 0 without tokens.
  double grad_norm = 0;
  double learning_rate = 0;
  double aux_loss = 0;
  int64_t tokens = 0;        ///< This party's loss tokens.
  int64_t input_tokens = 0;  ///< Of its batch, with or without loss, padding included: the speed's.
  int64_t federation_tokens = 0;
  double step_s = 0;
  uint64_t sent_bytes = 0;    ///< In this step.
  int64_t rows_sent = 0;      ///< Distinct (token, remote owner) rows, forward.
  std::string slowest_party;  ///< Whom this party waited for longest; empty: nobody.
  double slowest_wait_s = 0;
  /// Choices per expert in each layer, this party's tokens; empty for a dense layer.
  std::vector<std::vector<int64_t>> load_le;
};

/// The best evaluation of a run.
struct BestStep {
  int64_t step = 0;
  double value = 0;               ///< The federation's mean of the metric.
  int64_t evaluations_after = 0;  ///< None of them better.
};

/// Writes OUTPUT_DIR/metrics.jsonl (appending), OUTPUT_DIR/runs/events.out.tfevents.* (one a
/// process) and OUTPUT_DIR/result.json. No text, no token, no tensor.
class RunReport {
 public:
  /// `print` puts a line a step on stderr.
  static absl::StatusOr<RunReport> Create(const std::filesystem::path& output_dir,
                                          int64_t max_steps, int64_t logging_steps, bool print);
  RunReport(RunReport&& other) noexcept;
  ~RunReport();

  void Step(const StepRecord& record);
  void Evaluation(int64_t step, const std::string& name, const eval::EvalResult& result);
  /// The mean over the evaluation files, by tokens; for the history only. Said again for a step, it
  /// replaces what was said.
  void MeanEvaluation(int64_t step, const eval::EvalResult& result);
  /// The federation's mean of `metric` at a step, into file and history; once a step.
  void FederationMean(int64_t step, const std::string& metric, double value);
  void Note(const std::string& event, const std::string& detail);
  /// The best evaluation so far by the federation's mean, from the history; the earliest of equals.
  std::optional<BestStep> Best(const std::string& metric) const;
  /// The run starts, or goes on, from `step`: what was said of later steps is void.
  void Start(int64_t step, uint32_t attempt);
  /// What was logged up to here, for a checkpoint: at most kMaxLogEntries, the newest. A run that
  /// goes on from a checkpoint goes on from its history.
  const std::vector<LogEntry>& history() const { return history_; }
  void SetHistory(std::vector<LogEntry> history) { history_ = std::move(history); }
  /// The final summary; `peak_states_bytes` is what the allocator measured.
  absl::Status Finish(int64_t steps, uint64_t sent_bytes, uint64_t states_bytes,
                      uint64_t peak_allocated_bytes, const std::optional<BestStep>& best);

 private:
  RunReport() = default;
  void Write(const std::string& line);
  void Remember(LogEntry entry);

  std::filesystem::path output_dir_;
  std::FILE* file_ = nullptr;
  std::optional<EventFile> events_;  // there once Create is done
  int64_t max_steps_ = 0, logging_steps_ = 1;
  bool print_ = true;
  double seconds_ = 0, tokens_ = 0;  // of this process, without the first step
  int64_t timed_steps_ = 0, seen_steps_ = 0;
  std::map<std::string, eval::EvalResult> last_eval_;
  std::vector<LogEntry> history_;
};

/// Resident memory of this process, peak so far, in bytes (VmHWM).
uint64_t PeakResidentBytes();

}  // namespace pcmoe::train
