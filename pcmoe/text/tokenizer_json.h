// pcmoe/text/tokenizer_json.h: the parts of tokenizer.json that are tables: model, added tokens.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "pcmoe/text/added_tokens.h"
#include "pcmoe/text/bpe.h"
#include "pcmoe/text/json.h"
#include "pcmoe/text/normalizer.h"

namespace pcmoe::text {

/// The "model" part; INVALID_ARGUMENT unless it is a BPE without dropout.
absl::StatusOr<Bpe> BpeFromJson(const Json& model);

/// The "added_tokens" part. Tokens of the model's vocabulary keep the model's id, others get the
/// next free ones, whatever "id" says (so does Hugging Face's tokenizers).
absl::StatusOr<std::vector<AddedToken>> AddedTokensFromJson(const Json& list, const Bpe& bpe,
                                                            const Normalizer& normalizer);

/// What a post-processor puts before and after the ids of one text.
struct Frame {
  std::vector<int32_t> before;
  std::vector<int32_t> after;
};

/// The "post_processor" part: TemplateProcessing, RobertaProcessing, BertProcessing, ByteLevel and
/// sequences of them. Ids are checked against [0, `id_bound`).
absl::StatusOr<Frame> FrameFromJson(const Json& processor, int32_t id_bound);

}  // namespace pcmoe::text
