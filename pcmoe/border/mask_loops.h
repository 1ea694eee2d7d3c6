// pcmoe/border/mask_loops.h: the loops of fixed_point.h and pairwise_masks.h that are compiled once
// per CPU feature level. Included by files built with wide instruction sets: plain C types only,
// nothing inline from outside.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pcmoe::border {

/// A mask as the sum of two streams, each with its sign: a pass less over the memory.
struct MaskPair {
  const uint32_t* first = nullptr;
  const uint32_t* second = nullptr;
  bool subtract_first = false;
  bool subtract_second = false;
};

/// All levels give the same bits. Words are little-endian in memory.
struct MaskLoops {
  const char* name;  ///< "avx512", "avx2" or "baseline"
  /// net = (negate_net ? -net : net) + (subtract ? -stream : stream), mod 2^32.
  void (*combine)(uint32_t* net, bool negate_net, const uint32_t* stream, bool subtract,
                  size_t count);
  /// out = round(values * scale) + masks[at..], stochastically with one word of `random` times the
  /// odd `multiplier` a value. False when a |value * scale| is not below `limit` (NaN included; 1
  /// to 2^30, or the smallest normal number); `out` is then of no use.
  bool (*round_and_mask)(const float* values, size_t count, float scale, float limit,
                         const uint32_t* random, uint32_t multiplier, const MaskPair& masks,
                         size_t at, uint32_t* out);
  /// The largest of the values' bits without sign: orders as |x| does, and NaN above infinity.
  int32_t (*max_magnitude)(const float* values, size_t count);
  /// sum += words at `bytes` (any address), mod 2^32.
  void (*add)(uint32_t* sum, const uint8_t* bytes, size_t count);
  /// add_to += signed(sum) * unit, in double, rounded once.
  void (*decode)(const uint32_t* sum, size_t count, double unit, float* add_to);
};

const MaskLoops& Avx512MaskLoops();
const MaskLoops& Avx2MaskLoops();
const MaskLoops& BaselineMaskLoops();
/// The widest that this processor has and PCMOE_CPU allows (base/cpu_level.h), chosen once.
const MaskLoops& ActiveMaskLoops();

}  // namespace pcmoe::border
