// pcmoe/report/run_folder.h: what one process of a run left in its output_dir.
#pragma once

#include <cmath>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "pcmoe/report/json_access.h"
#include "pcmoe/report/report.h"

namespace pcmoe::report {

/// A logged step.
struct TrainPoint {
  double loss = std::nan("");
  double tokens = 0;  ///< This party's; 0: it was not its turn.
};

/// An evaluation of one file; NaN where the run did not say.
struct EvalPoint {
  double loss = std::nan("");
  double tokens = 0;
  double accuracy = std::nan(""), accuracy_norm = std::nan("");
  double examples = 0;
};

/// Choices per expert by layer.
using Load = std::vector<std::vector<double>>;

/// A party's run, or a run of one.
struct RunFolder {
  std::string name;                     ///< Of the party; "all": of all.
  std::map<int64_t, TrainPoint> train;  ///< By step.
  std::map<int64_t, std::map<std::string, EvalPoint>> evaluations;  ///< By step, then by file.
  Load load;  ///< Summed over the newest `load_steps` logged steps.
  int64_t load_steps = 0;
  int64_t failures = 0;  ///< Attempts that were given up.
  Json result, about;    ///< result.json and about.json; null where there is none.
  std::optional<LedgerFacts> ledger;
  std::string ledger_problem;  ///< Why there is no `ledger`, if there is a file.
};

/// Reads `folder`; NOT_FOUND without a metrics.jsonl. Lines that a crash cut are passed over; what
/// was logged of steps that a restart gave up is left out.
absl::StatusOr<RunFolder> ReadRunFolder(const std::filesystem::path& folder, std::string name,
                                        const LedgerReader& ledger);

/// Processes that ran together: a federation, or what it is compared with.
struct Mode {
  std::string name;
  std::vector<RunFolder> processes;
};

}  // namespace pcmoe::report
