// pcmoe/border/fixed_point.h: gradients as integers mod 2^32 whose sum is exact, under masks.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>

#include "pcmoe/base/status.h"
#include "pcmoe/border/pairwise_masks.h"

namespace pcmoe::border {

/// The byte that a party tells of a group of gradients: 0 when all are zero, 255 when one is not
/// finite, else the smallest b in 1..254 with max |x| < 2^(b - 126) (denormals: 1). The byte of
/// several groups is the largest of theirs. No values: 0.
uint8_t ExponentOf(std::span<const float> values);

/// The power of two that all contributors of a group multiply by.
struct FixedPoint {
  /// x becomes the integer next to x * 2^shift; -113 to 127.
  int shift = 0;
  /// |x| * 2^shift must be below this; a power of two, so small that the sum of all contributors'
  /// integers, each at most this, stays within 31 bits and a sign.
  float limit = 0;

  /// From all contributors' bytes of the group. DATA_LOSS when one of them is 255: the step must
  /// stop. INVALID_ARGUMENT: no byte, or contributors not in 1..65535.
  static absl::StatusOr<FixedPoint> For(std::span<const uint8_t> exponents, int contributors);
};

/// The secret that a party's stochastic rounding runs on. The same key, place and element always
/// round alike, whatever the attempt, so that a step that is run again gives the same weights.
class RoundingKey {
 public:
  /// From a secret of the party's own that outlives the run (its shuffle.key); INTERNAL when
  /// OpenSSL fails.
  static absl::StatusOr<RoundingKey> Derive(const std::array<uint8_t, 32>& secret,
                                            const wire::RunId& run);
  ~RoundingKey();
  RoundingKey(const RoundingKey&) = default;
  RoundingKey& operator=(const RoundingKey&) = default;

 private:
  friend class MaskedWriter;
  RoundingKey() = default;
  CounterStream::Key key_{};
};

/// Turns one unit's tensors, one after another, into one masked share. Rounding: x * 2^shift goes
/// to one of its two neighbours, to the one further from zero with the probability of what
/// truncation cuts off, to 2^-30. The randomness is AES-128-CTR; sixteen elements, 2,048 apart,
/// share a word times different odd constants: each is uniform, two of them are nearly independent
/// (tested). All CPUs give the same bits. Movable, not thread-safe; several writers of one
/// PairwiseMasks may run at the same time.
class MaskedWriter {
 public:
  /// Takes the place: at most one writer a place. Errors: PairwiseMasks::Take's.
  static absl::StatusOr<MaskedWriter> Create(const FixedPoint& scale, const RoundingKey& rounding,
                                             const MaskPlace& place,
                                             std::span<const wire::PartyIndex> peers,
                                             PairwiseMasks& masks);
  ~MaskedWriter();
  MaskedWriter(MaskedWriter&&) = default;
  MaskedWriter& operator=(MaskedWriter&&) = default;

  /// The share of the next `count` values. OUT_OF_RANGE when one is not below the limit (or NaN):
  /// nothing of the share may be sent, the step must stop, and every further Append fails.
  absl::Status Append(const float* values, size_t count, uint32_t* out);

 private:
  struct Random {
    alignas(64) std::array<uint32_t, NetMask::kBlockWords> words;
  };
  MaskedWriter(const FixedPoint& scale, CounterStream rounding, NetMask mask);
  absl::Status NextBlock(const Ahead& ahead);

  FixedPoint scale_;
  CounterStream rounding_;
  NetMask mask_;
  std::unique_ptr<Random> random_;
  MaskPair pair_;  // the current block of mask_
  uint64_t blocks_ = 0;
  size_t at_ = NetMask::kBlockWords;
  bool failed_ = false;
};

/// One MaskedWriter with one Append.
absl::Status MaskedFixedPoint(const float* values, size_t count, const FixedPoint& scale,
                              const RoundingKey& rounding, const MaskPlace& place,
                              std::span<const wire::PartyIndex> peers, PairwiseMasks& masks,
                              uint32_t* out);

/// The share of integers (row counts): out = values + masks, mod 2^32. Their sum over the parties
/// must stay below 2^32. Errors: PairwiseMasks::Take's.
absl::Status MaskIntegers(const uint32_t* values, size_t count, const MaskPlace& place,
                          std::span<const wire::PartyIndex> peers, PairwiseMasks& masks,
                          uint32_t* out);

/// sum += the `count` words at `share` (little-endian, any address), mod 2^32.
void AddInto(uint32_t* sum, const uint8_t* share, size_t count);

/// add_to += signed(sum) * 2^-shift; computed in double and rounded once to float.
void DecodeSum(const uint32_t* sum, size_t count, const FixedPoint& scale, float* add_to);

}  // namespace pcmoe::border
