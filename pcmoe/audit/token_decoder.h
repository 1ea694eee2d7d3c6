// pcmoe/audit/token_decoder.h: a small network that learns a token from a vector: the core of the
// learned attacks. Shape legend: R rows, D width of a row, V vocabulary, H hidden width.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace pcmoe::audit {

/// How a decoder is trained.
struct DecoderOptions {
  int64_t hidden = 0;  ///< H; 0: four times the width, at least 256.
  int64_t epochs = 3;
  int64_t batch = 1024;
  double learning_rate = 4e-3;
  uint64_t seed = 1;
};

/// softmax(W2 relu(W1 standardised(x) + b1) + b2), trained with cross entropy and Adam, the rate
/// falling linearly to zero. Formulas are explicit: no autograd. Immutable once trained.
class TokenDecoder {
 public:
  /// `rows_rd` float, `token_r` int64 in [0, vocab). At least one row.
  static TokenDecoder Train(const at::Tensor& rows_rd, const at::Tensor& token_r, int64_t vocab,
                            const DecoderOptions& options = {});

  /// Log probabilities [R, V].
  at::Tensor LogProbabilities(const at::Tensor& rows_rd) const;
  /// The likeliest token of every row, int64 [R].
  at::Tensor Best(const at::Tensor& rows_rd) const;

 private:
  at::Tensor Hidden(const at::Tensor& rows_rd) const;
  at::Tensor mean_d_, scale_d_;
  at::Tensor w1_hd_, b1_h_, w2_vh_, b2_v_;
};

/// Mean vector of every token, normalised: attack A2, which needs no training. Tokens that never
/// came have a zero vector.
class Codebook {
 public:
  Codebook(const at::Tensor& rows_rd, const at::Tensor& token_r, int64_t vocab);
  /// argmax over tokens of the cosine, int64 [R].
  at::Tensor Best(const at::Tensor& rows_rd) const;

 private:
  at::Tensor mean_d_, code_vd_;
};

}  // namespace pcmoe::audit
