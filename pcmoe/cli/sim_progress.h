// pcmoe/cli/sim_progress.h: follows the parties' metrics.jsonl and shows one line for all of them.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace pcmoe::cli {

/// One progress line on stderr: in place on a terminal, else a new line every few seconds. One
/// thread.
class SimProgress {
 public:
  /// `title` is what runs; metrics[i] is the file of party names[i], which need not exist yet.
  SimProgress(std::string title, std::vector<std::string> names,
              std::vector<std::filesystem::path> metrics, int64_t max_steps);
  ~SimProgress();
  SimProgress(const SimProgress&) = delete;
  SimProgress& operator=(const SimProgress&) = delete;

  /// Reads what is new and shows it; true when there was anything.
  bool Tick();

  /// "federated step 3/20 loss 7.1234 | 812 tokens/s | ETA 0m12s | 1.20 MB a step | slowest b";
  /// without a step yet, that it starts.
  std::string Line() const;

 private:
  struct Party {
    std::string name;
    std::filesystem::path path;
    std::ifstream file;
    std::string rest;  // of a line not yet written whole
    int64_t step = 0;
    double loss = 0, tokens = 0, sent_bytes = 0, waited_s = 0;  // tokens: with loss
    std::string waited_for;
    double input_after_first = 0;  // all tokens of a batch, in all steps but the first, which pays
                                   // for warm-up
  };
  bool Read(Party& party);
  void Take(Party& party, const std::string& line);
  int64_t Step() const;
  std::string Slowest() const;

  const std::string title_;
  const int64_t max_steps_;
  const bool terminal_;
  std::vector<Party> parties_;
  int64_t first_step_ = 0;  // the step at which the speed begins to be measured
  int64_t shown_step_ = 0;
  absl::Time first_time_, step_time_, shown_;
  bool line_open_ = false, ended_ = false;
};

}  // namespace pcmoe::cli
