// pcmoe/eval/eval_set.h: a file to evaluate on: loss for all rows, and accuracy for rows with a
// label, by the log-likelihood of every label's tokens after the row's text.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "pcmoe/data/dataset.h"
#include "pcmoe/model/backbone.h"

namespace pcmoe::eval {

/// How many labels were found.
struct Accuracy {
  int64_t examples = 0;
  int64_t right = 0;             ///< By the sum of the log-likelihoods of the label's tokens.
  int64_t right_normalised = 0;  ///< By that sum divided by the label's bytes.
  int64_t majority = 0;          ///< What naming the commonest label of the file always would get.
  double Share(int64_t count) const {
    return examples == 0 ? 0 : static_cast<double>(count) / static_cast<double>(examples);
  }
};

/// What an evaluation found.
struct EvalResult {
  double loss_sum = 0;  ///< nats
  int64_t loss_tokens = 0;
  std::optional<Accuracy> accuracy;  ///< Of rows with labels.
  double Loss() const { return loss_tokens == 0 ? 0 : loss_sum / static_cast<double>(loss_tokens); }
  /// Adds a pass over some of the micro-batches, whose answers go to the end of `answers`.
  void Add(model::PassResult& pass, std::vector<std::vector<double>>& answers);
};

/// Rows as micro-batches of about one length, and what is asked of them. Immutable; const use is
/// thread-safe.
class EvalSet {
 public:
  struct Options {
    data::DatasetOptions dataset;
    int64_t batch_tokens = 4096;      ///< Most tokens of a micro-batch, padding counted.
    std::vector<std::string> labels;  ///< To choose from; empty: those that stand in the file.
  };
  /// Errors name file and line. INVALID_ARGUMENT when a row has a label that is not one of
  /// `labels`, or a label has no token.
  static absl::StatusOr<EvalSet> Load(const std::filesystem::path& path,
                                      const text::Tokenizer& tokenizer, const Options& options);

  const std::vector<model::MicroBatch>& batches() const { return batches_; }
  /// One list a micro-batch; empty when no row has a label.
  const model::TokenQueries& queries() const { return queries_; }
  /// The part of it for `count` micro-batches from `first` on.
  std::span<const std::vector<model::TokenQuery>> QueriesOf(size_t first, size_t count) const {
    return queries_.empty() ? std::span<const std::vector<model::TokenQuery>>()
                            : std::span(queries_).subspan(first, count);
  }
  const data::DatasetCounts& counts() const { return counts_; }
  const std::vector<std::string>& labels() const { return labels_; }

  /// From the answers to all of queries(), in their order. Empty when no row has a label.
  std::optional<Accuracy> Score(const std::vector<std::vector<double>>& log_probs) const;

 private:
  struct Row;
  struct Asked {  // one token's query: which sequence, then which micro-batch and place in its list
    size_t sequence = 0;
    int64_t position = 0;
    int64_t token = 0;
  };
  struct Example {
    size_t label = 0;                        // of labels_
    std::vector<std::vector<Asked>> labels;  // by label: its tokens
  };
  absl::Status Read(const std::filesystem::path& path, const text::Tokenizer& tokenizer,
                    const Options& options);
  absl::Status ReadLabels(const std::filesystem::path& path, const text::Tokenizer& tokenizer,
                          const Options& options);
  void AddExample(const data::EncodedRow& row, size_t label, std::vector<int32_t> prompt,
                  std::vector<data::Sequence>& sequences);
  void MakeBatches(std::vector<data::Sequence> sequences, int64_t batch_tokens);

  std::vector<std::string> labels_;
  std::vector<std::vector<int32_t>> label_ids_;
  std::vector<Example> examples_;
  data::DatasetCounts counts_;
  std::vector<model::MicroBatch> batches_;
  model::TokenQueries queries_;
  // Of examples_, its labels and their tokens, in that order: where the answer stands.
  std::vector<std::pair<size_t, size_t>> answers_;
};

}  // namespace pcmoe::eval
