// pcmoe/train/event_file.h: writes the event files that TensorBoard opens: scalars by step.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "pcmoe/base/status.h"

namespace pcmoe::train {

/// One file events.out.tfevents.<seconds>.pcmoe.<process>, of records that TensorFlow calls
/// TFRecord, each a protobuf Event. Each record is on disk, as far as the system goes, when its
/// call returns. Not thread-safe. Errors after Create are not told: a full disk must not end a run.
class EventFile {
 public:
  /// Makes `folder` (its parent must exist) and a new file in it.
  static absl::StatusOr<EventFile> Create(const std::filesystem::path& folder);

  /// What is known after `step` steps, by TensorBoard's tags ("train/loss").
  void Scalars(int64_t step, const std::map<std::string, double>& values);

  /// The run goes on from `step`: readers drop what was written of later steps.
  void GoOnFrom(int64_t step);

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  explicit EventFile(std::FILE* file) : file_(file) {}
  void Write(const std::string& event);

  std::unique_ptr<std::FILE, Close> file_;
};

/// The tag that transformers' TensorBoardCallback gives a log entry's name: "eval_loss" ->
/// "eval/loss", "loss" -> "train/loss".
std::string TagOf(std::string_view name);

/// CRC-32C (Castagnoli; RFC 3720, appendix B.4), the checksum of TFRecord before its masking.
uint32_t Crc32c(std::string_view bytes);

}  // namespace pcmoe::train
