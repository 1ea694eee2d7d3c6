// pcmoe/eval/batches.h: sequences of tokens as the tensors that a model takes. Shape legend: B
// sequences, S length.
#pragma once

#include <span>
#include <vector>

#include "pcmoe/data/packing.h"
#include "pcmoe/model/backbone.h"

namespace pcmoe::eval {

/// Sequences as a micro-batch [B, S], S being the longest one's length; shorter ones are padded
/// with the token 0, without labels, as a document of its own.
model::MicroBatch ToMicroBatch(std::span<const data::Sequence* const> sequences);

/// Cuts sequences, in their order, into micro-batches of at most `most_tokens` tokens with padding
/// (a longer sequence has one to itself).
std::vector<std::vector<const data::Sequence*>> CutByTokens(
    std::span<const data::Sequence> sequences, int64_t most_tokens);

}  // namespace pcmoe::eval
