// pcmoe/audit/sequence_decoder.h: attack A3: a small transformer that learns tokens from what is
// seen of many tokens at once, each in some layers only. Shape legend: N tokens, L layers, D width
// of a row, V vocabulary.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace pcmoe::audit {

/// How a sequence decoder is built and trained.
struct SequenceDecoderOptions {
  int64_t width = 256;
  int64_t blocks = 2;
  int64_t heads = 4;
  int64_t set_size = 128;  ///< Tokens that see each other.
  int64_t sets_at_once = 8;
  int64_t epochs = 5;
  double learning_rate = 2e-3;
  double drop = 0.05;  ///< Share of rows left out while training, for links that are missed.
  uint64_t seed = 1;
};

/// Reads sets of tokens that belong together (one micro-batch) and are in no order: attention
/// without positions, both ways. Immutable once trained.
class SequenceDecoder {
 public:
  /// `rows_nlw`: float [N, L, D+1]: a token's rows, zero where not seen, and a one where seen.
  /// `token_n`: int64 in [0, vocab). `group_n`: which set a token belongs to; equal ones are next
  /// to each other. At least one token.
  static SequenceDecoder Train(const at::Tensor& rows_nlw, const at::Tensor& token_n,
                               const std::vector<int64_t>& group_n, int64_t vocab,
                               const SequenceDecoderOptions& options = {});

  /// The likeliest token of every one, int64 [N].
  at::Tensor Best(const at::Tensor& rows_nlw, const std::vector<int64_t>& group_n) const;

 private:
  struct Block {
    at::Tensor qkv, out, up, up_bias, down, down_bias;
  };
  SequenceDecoder(int64_t columns, int64_t vocab, const SequenceDecoderOptions& options);
  at::Tensor Logits(const at::Tensor& rows_bsx) const;  // [B, S, L*(D+1)] -> [B, S, V]
  std::vector<at::Tensor> Weights() const;

  SequenceDecoderOptions options_;
  at::Tensor in_, in_bias_, embed_, embed_bias_, head_, head_bias_;
  std::vector<Block> blocks_;
};

}  // namespace pcmoe::audit
