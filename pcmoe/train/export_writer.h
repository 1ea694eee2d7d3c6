// pcmoe/train/export_writer.h: one Hugging Face folder of the whole model: written whole or not at
// all, and opened again and compared before it is called done.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "pcmoe/base/digest.h"
#include "pcmoe/model/checkpoint_writer.h"
#include "pcmoe/model/stages.h"

namespace pcmoe::train {

/// Where an export goes, and what it says of itself. Plain data.
struct ExportRequest {
  std::filesystem::path out;
  std::filesystem::path base_folder;  ///< Of the tokenizer's and generation's files; empty: none.
  std::filesystem::path tokenizer;    ///< Copied to tokenizer.json besides, unless empty.
  uint64_t max_shard_bytes = model::kDefaultShardBytes;
  bool replace = false;               ///< An earlier export in `out` may go.
  std::filesystem::path logits_file;  ///< Takes tokens and logits of the comparison, unless empty.
  std::optional<int64_t> step;        ///< Of the checkpoint, by `pcmoe export`; else the newest.
  std::string federation;             ///< As in a checkpoint's state.
  std::string party;
};

struct ExportSummary {
  uint64_t bytes = 0;  ///< Of all weights.
  size_t tensors = 0, shards = 0;
  double largest_difference = 0;  ///< Of the logits, relative to the largest logit.
};

/// A note in every export, which tells it from other folders.
inline constexpr char kExportNote[] = "pcmoe_export.json";

/// OK when `out` is missing, empty, or an earlier export that may be replaced; else ALREADY_EXISTS.
absl::Status CheckExportTarget(const ExportRequest& request);

/// What an export is held against once it is on disk.
struct ExportProof {
  at::Tensor tokens_bs, logits_bsv;
  std::map<std::string, base::Sha256> digests;  ///< Of every tensor's bytes, by name.
};

/// One export: written beside `out`, then proved and renamed. Destroyed before that, it leaves
/// nothing, and what was in `out` stays. One thread.
class ExportWriter {
 public:
  /// `config` outlives this.
  ExportWriter(const model::ModelConfig& config, ExportRequest request);
  ~ExportWriter();
  ExportWriter(const ExportWriter&) = delete;
  ExportWriter& operator=(const ExportWriter&) = delete;

  /// Writes the model of `step` committed steps: asks `next` for every stage once, in the order of
  /// StagedLogits. Needs nobody else afterwards. ALREADY_EXISTS as CheckExportTarget.
  absl::Status Write(const model::NextStage& next, int64_t step);

  /// After Write: VerifyExport, sync, rename.
  absl::StatusOr<ExportSummary> Finish();

 private:
  absl::Status WriteNote(int64_t step) const;

  const model::ModelConfig& config_;
  const ExportRequest request_;
  const std::filesystem::path target_, temporary_;
  ExportProof proof_;
  ExportSummary summary_;
};

/// Opens `folder` again: every tensor must have the bytes, and seeded random tokens the logits (to
/// 1e-6 of the largest), that they had in memory. DATA_LOSS names what differs. Returns the largest
/// relative difference of the logits.
absl::StatusOr<double> VerifyExport(const std::filesystem::path& folder,
                                    const model::ModelConfig& config, const ExportProof& proof);

}  // namespace pcmoe::train
