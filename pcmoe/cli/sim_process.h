// pcmoe/cli/sim_process.h: runs parties as child processes: real programs, watched, never left
// behind.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "pcmoe/base/status.h"

namespace pcmoe::cli {

/// One `pcmoe train` to start.
struct ChildSpec {
  std::string name;              ///< For messages; the party's.
  std::filesystem::path config;  ///< Its TOML file.
  std::filesystem::path log;     ///< Takes its stderr, appended.
  int64_t num_threads = 1;       ///< OMP_NUM_THREADS of its environment.
};

/// Children of this process. They are stopped when this object ends, and killed by the system when
/// this process dies. Used by the main thread alone: the system ties the children to the thread
/// that starts them.
class Children {
 public:
  Children() = default;
  ~Children();
  Children(const Children&) = delete;
  Children& operator=(const Children&) = delete;

  /// Starts this same program with `train --config`; no shell.
  absl::Status Start(const ChildSpec& spec);

  /// Calls `tick` about ten times a second until all have ended well. When one fails, the others
  /// are stopped and the status is its last sentence, with its name and the code of its exit
  /// status. CANCELLED when `interrupted` says so; DEADLINE_EXCEEDED when `tick` saw nothing new
  /// for `stall`.
  absl::Status Run(const std::function<bool()>& tick, const std::function<bool()>& interrupted,
                   absl::Duration stall);

 private:
  struct Child {
    ChildSpec spec;
    pid_t pid = -1;  // -1: ended and collected
    int wait_status = 0;
  };
  bool Collect();
  bool Running() const;
  const Child* Culprit() const;
  void Stop();

  std::vector<Child> children_;
};

/// What `text`, a party's log, says last: the text behind the last line that begins with "pcmoe: ".
/// Empty when there is none.
std::string LastSentence(const std::string& text);

/// The status that stands for a child's `wait_status` (as waitpid gives it), with the code that
/// makes this process end with the same exit code.
absl::Status StatusOfChild(const std::string& name, int wait_status, const std::string& sentence);

}  // namespace pcmoe::cli
