// pcmoe/audit/rows_attacks.h: attacks on the tokens and labels behind received rows. Each takes
// what the attacker has (a View, public text run through the public model) and gives guesses;
// scoring is elsewhere (rows_audit.cc). Shape legend: R rows, C clusters, L layers.
#pragma once

#include <ATen/core/Tensor.h>

#include <span>
#include <vector>

#include "pcmoe/audit/base_model.h"
#include "pcmoe/audit/linker.h"
#include "pcmoe/audit/sequence_decoder.h"
#include "pcmoe/audit/token_decoder.h"
#include "pcmoe/audit/view.h"

namespace pcmoe::audit {

/// Guessed tokens of every row of every layer, int64 [R] each; undefined where a layer has none.
using RowGuesses = std::vector<at::Tensor>;

/// Guesses from rows, and from all rows of a cluster together.
struct DecodedRows {
  RowGuesses rows;
  at::Tensor clusters;        ///< int64 [C]: the likeliest token.
  at::Tensor clusters_top10;  ///< int64 [C, 10], likeliest first.
};

/// Text that the attacker ran through the public model.
struct Shadow {
  Capture plain;   ///< With gradients.
  Capture varied;  ///< Same kind of text with random tokens put in, so that rare ones occur;
                   ///< forward only.
};

/// A1: a network per layer learns tokens from the rows of public text; log probabilities of a
/// cluster's rows are added.
DecodedRows DecodeRows(const View& view, std::span<const Cluster> clusters, const Shadow& shadow,
                       int64_t vocab, const DecoderOptions& options);

/// A3: a transformer over the rows of many tokens at once, each with the layers that the coalition
/// saw of it. Messages are shuffled, so the tokens of a micro-batch are a set: no order is used.
/// Learned on public text with what the coalition would have seen of it; int64 [C].
at::Tensor DecodeSets(const View& view, std::span<const Cluster> clusters, const Shadow& shadow,
                      int64_t vocab, const SequenceDecoderOptions& options);

/// The control of A1: a smaller decoder, trained with the shadow's rows shuffled against their
/// tokens. What it gets above the unigram, the harness itself gives away. Not shuffled, the same
/// training shows what this control would notice.
RowGuesses DecodeRowsControl(const View& view, const Shadow& shadow, int64_t vocab, bool shuffled);

/// A2: the nearest mean row of a token by cosine.
RowGuesses DecodeByCodebook(const View& view, const Shadow& shadow, int64_t vocab);

/// A5, closed form: argmax_v -<head_v * final norm, q>: the row of the public head that the
/// gradient points away from.
RowGuesses LabelsClosedForm(const View& view, const at::Tensor& head_vd,
                            const at::Tensor& final_norm_d);

/// A5, learned: next tokens from normalised gradient rows of public text, per layer and per
/// cluster.
DecodedRows LabelsLearned(const View& view, std::span<const Cluster> clusters, const Shadow& shadow,
                          int64_t vocab, const DecoderOptions& options);

/// A6: tokens of clusters from the coalition's expert ids alone, or with the gate weights; int64
/// [C].
at::Tensor DecodeRouting(const View& view, std::span<const Cluster> clusters, const Shadow& shadow,
                         int64_t vocab, bool with_weights);

/// A9: a decoder for one layer's rows trained on known pairs alone; guesses for all rows.
at::Tensor DecodeWithKnownPlaintext(const at::Tensor& rows_rd, std::span<const int64_t> known_rows,
                                    const at::Tensor& known_tokens, int64_t vocab);

}  // namespace pcmoe::audit
