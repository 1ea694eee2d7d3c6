// pcmoe/data/dataset.h: rows of a file as sequences in which every token knows whether it counts in
// the loss; and what became of every row: nothing is dropped in silence.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "pcmoe/data/jsonl.h"
#include "pcmoe/data/packing.h"

namespace pcmoe::data {

/// How rows become sequences.
enum class Batching {
  kPacked,         ///< End to end, all of one length; a row with a completion is never split.
  kGroupByLength,  ///< A sequence a row, as long as it is; batches hold rows of about one length.
};

/// How a file is read. Plain data.
struct DatasetOptions {
  JsonlOptions jsonl;
  PackOptions pack;  ///< sequence_length is the most tokens that a row keeps, whatever `batching`.
  Batching batching = Batching::kPacked;
  bool loss_on_prompt = false;  ///< Rows with a completion: loss on the prompt, too.
};

/// One row as tokens. Plain data.
struct EncodedRow {
  std::vector<int32_t> ids;     ///< With the EOS, where there is one.
  std::vector<int32_t> labels;  ///< The token itself, or kIgnoredLabel.
  int64_t prompt_tokens =
      0;  ///< Of ids, those before the completion; all but the EOS of a plain row.
  bool supervised = false;  ///< It had a completion.
  bool cut = false;  ///< Longer than sequence_length: the prompt lost its beginning, or a plain
                     ///< text its end.

  /// Forgets the first `count` tokens, at most as many as there are.
  void DropFront(int64_t count);
};

/// What became of the rows of a file.
struct DatasetCounts {
  int64_t rows = 0;
  int64_t supervised = 0;    ///< With a label or completion.
  int64_t cut = 0;           ///< See EncodedRow; plain rows that are packed are never cut.
  int64_t without_loss = 0;  ///< Rows in which no token counts: they teach nothing.
  int64_t duplicates = 0;    ///< Rows that stand in the file before, to the letter.
  int64_t tokens = 0;
  int64_t loss_tokens = 0;  ///< Of `tokens`; the first of a sequence never counts, labels or not.
  int64_t longest = 0;      ///< Tokens of the longest row before anything was cut.

  /// "2 rows cut at 256 tokens, 1 row without a loss token"; empty when all rows are whole.
  std::string Losses(int64_t sequence_length) const;
};

/// A file ready for training.
struct Dataset {
  std::vector<Sequence> sequences;
  DatasetCounts counts;
};

/// Tokens and labels of one row. INVALID_ARGUMENT when its text is not valid UTF-8.
absl::StatusOr<EncodedRow> EncodeRow(const Document& document, const text::Tokenizer& tokenizer,
                                     const DatasetOptions& options);

/// Reads a whole file. Errors name file and line. The tokens are all in memory, the texts are not.
absl::StatusOr<Dataset> LoadDataset(const std::filesystem::path& path,
                                    const text::Tokenizer& tokenizer,
                                    const DatasetOptions& options);

}  // namespace pcmoe::data
