// pcmoe/data/packing.h: tokenised documents, end to end, in sequences of one length.
// Shape legend: S tokens of a sequence.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "pcmoe/base/status.h"
#include "pcmoe/text/tokenizer.h"

namespace pcmoe::data {

/// The label of a position that does not count in the loss, as transformers has it.
inline constexpr int32_t kIgnoredLabel = -100;

/// One row of a batch.
struct Sequence {
  std::vector<int32_t> tokens;  ///< S token ids.
  std::vector<int32_t> labels;  ///< S: the token itself (the loss shifts), or kIgnoredLabel.
  std::vector<int32_t> document_starts;  ///< Ascending offsets in [0, S) where a document (or the
                                         ///< rest of one, or the padding) begins; the first is 0.

  bool operator==(const Sequence&) const = default;
};

/// What becomes of the tokens at the end that do not fill a sequence.
enum class LastSequence { kPad, kDrop };

/// How documents are packed.
struct PackOptions {
  int32_t sequence_length = 0;             ///< S; at least 2.
  int32_t eos_id = -1;                     ///< Put after every document; -1 puts nothing.
  LastSequence last = LastSequence::kPad;  ///< Padding has the token pad_id and no label.
  int32_t pad_id = 0;
  bool add_special_tokens = false;  ///< Let the tokenizer's post-processor add its own, too.
};

/// Takes documents one by one and gives out full sequences. Not thread-safe.
class Packer {
 public:
  /// INVALID_ARGUMENT when an option is out of range.
  static absl::StatusOr<Packer> Create(const PackOptions& options);

  /// Appends a document's `ids` and the EOS. An empty document adds nothing.
  void Add(std::span<const int32_t> ids);
  /// Likewise, `ids` ending as they are.
  void AddFlowing(std::span<const int32_t> ids);
  /// Appends a row that stays in one sequence, with labels of its own; padding fills the sequence
  /// before it when it does not fit. At most sequence_length tokens.
  void AddWhole(std::span<const int32_t> ids, std::span<const int32_t> labels);
  /// The sequences so far; with the last, partial one treated as the options say.
  std::vector<Sequence> Finish() &&;

 private:
  explicit Packer(const PackOptions& options) : options_(options) {}
  void Push(int32_t token, int32_t label, bool starts_document);
  void PadAndClose();

  PackOptions options_;
  std::vector<Sequence> done_;
  Sequence open_;
};

/// Reads, tokenises and packs files in the given order. No files, or files without documents, give
/// no sequences. Errors name file and line. The texts are never all in memory, the tokens are.
absl::StatusOr<std::vector<Sequence>> LoadSequences(const std::vector<std::filesystem::path>& files,
                                                    const text::Tokenizer& tokenizer,
                                                    const PackOptions& options,
                                                    const std::string& column = "text");

}  // namespace pcmoe::data
