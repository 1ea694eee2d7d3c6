// pcmoe/border/fixed_point.cc: see fixed_point.h.
#include "pcmoe/border/fixed_point.h"

#include <sodium.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <string_view>

#include "pcmoe/border/mask_loops.h"

namespace pcmoe::border {
namespace {

static_assert(std::endian::native == std::endian::little, "shares are little-endian words");

constexpr int kMaxContributors = 65535;
constexpr int kMaxShift = 127;  // 2^127 is a float still
// A random word serves one element of each block of a group: as it is, then times these. They are
// the powers of a multiplier of good spectral quality (L'Ecuyer 1999, table 4, for 2^32), odd, so
// that each product is as uniform as the word; and top bits, which decide, depend on all below.
constexpr std::array<uint32_t, 16> kMultipliers = [] {
  std::array<uint32_t, 16> powers{1};
  for (size_t i = 1; i < powers.size(); ++i) powers[i] = powers[i - 1] * 2891336453U;
  return powers;
}();

std::span<const uint8_t> Bytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

}  // namespace

uint8_t ExponentOf(std::span<const float> values) {
  const int32_t largest = ActiveMaskLoops().max_magnitude(values.data(), values.size());
  return largest == 0 ? uint8_t{0} : static_cast<uint8_t>(std::max(1, largest >> 23));
}

absl::StatusOr<FixedPoint> FixedPoint::For(std::span<const uint8_t> exponents, int contributors) {
  if (exponents.empty() || contributors < 1 || contributors > kMaxContributors) {
    return absl::InvalidArgumentError(
        "a fixed-point scale needs an exponent and 1 to 65535 contributors");
  }
  const int largest = std::ranges::max(exponents);
  if (largest == 255) {
    return absl::DataLossError(
        "a party's gradient is not finite; lower the learning rate, or look at the last batches");
  }
  // Every integer is at most 2^bits (rounding up reaches it), and contributors * 2^bits < 2^31.
  const uint32_t share = std::numeric_limits<int32_t>::max() / static_cast<uint32_t>(contributors);
  const int bits = std::bit_width(share) - 1;
  FixedPoint scale;
  scale.shift = std::min(kMaxShift, bits - (largest - 126));
  // All zero: at this shift the smallest number that is not is 2^-22. The limit, and the float
  // below it, must be normal numbers: a processor that flushes denormals would let nothing pass.
  scale.limit =
      largest == 0 ? std::ldexp(1.0F, -30) : std::ldexp(1.0F, largest - 126 + scale.shift);
  return scale;
}

absl::StatusOr<RoundingKey> RoundingKey::Derive(const std::array<uint8_t, 32>& secret,
                                                const wire::RunId& run) {
  RoundingKey key;
  PCMOE_RETURN_IF_ERROR(Hkdf(secret, run, Bytes("pcmoe stochastic rounding 1\n"), key.key_));
  return key;
}

RoundingKey::~RoundingKey() { sodium_memzero(key_.data(), key_.size()); }

MaskedWriter::MaskedWriter(const FixedPoint& scale, CounterStream rounding, NetMask mask)
    : scale_(scale),
      rounding_(std::move(rounding)),
      mask_(std::move(mask)),
      random_(std::make_unique<Random>()) {}

MaskedWriter::~MaskedWriter() {
  if (random_ != nullptr) sodium_memzero(random_.get(), sizeof(Random));
}

absl::StatusOr<MaskedWriter> MaskedWriter::Create(const FixedPoint& scale,
                                                  const RoundingKey& rounding,
                                                  const MaskPlace& place,
                                                  std::span<const wire::PartyIndex> peers,
                                                  PairwiseMasks& masks) {
  PCMOE_ASSIGN_OR_RETURN(const CounterStream::Block first, FirstBlockOf(place));
  PCMOE_ASSIGN_OR_RETURN(CounterStream random, CounterStream::Create(rounding.key_, first));
  PCMOE_ASSIGN_OR_RETURN(NetMask mask, NetMask::Create(masks, place, peers));
  return MaskedWriter(scale, std::move(random), std::move(mask));
}

absl::Status MaskedWriter::NextBlock(const Ahead& ahead) {
  PCMOE_ASSIGN_OR_RETURN(pair_, mask_.NextBlock(ahead));
  if (blocks_ % kMultipliers.size() == 0) {
    PCMOE_RETURN_IF_ERROR(rounding_.Fill(std::span<uint32_t>(random_->words)));
  }
  ++blocks_;
  at_ = 0;
  return absl::OkStatus();
}

absl::Status MaskedWriter::Append(const float* values, size_t count, uint32_t* out) {
  if (failed_) {
    return absl::FailedPreconditionError("a share went on after it had failed; stop the step");
  }
  failed_ = true;  // until this call succeeds
  const float scale = std::ldexp(1.0F, scale_.shift);
  bool in_range = true;
  while (count > 0 && in_range) {
    if (at_ == NetMask::kBlockWords) {
      // The block after this one: its lines have all arrived when it begins.
      const size_t skip = std::min(count, NetMask::kBlockWords);
      const size_t soon = std::min(count - skip, NetMask::kBlockWords) * sizeof(float);
      PCMOE_RETURN_IF_ERROR(NextBlock(Ahead(values + skip, out + skip, soon)));
    }
    const size_t piece = std::min(count, NetMask::kBlockWords - at_);
    const uint32_t multiplier = kMultipliers[(blocks_ - 1) % kMultipliers.size()];
    in_range =
        ActiveMaskLoops().round_and_mask(values, piece, scale, scale_.limit,
                                         random_->words.data() + at_, multiplier, pair_, at_, out);
    at_ += piece;
    values += piece;
    out += piece;
    count -= piece;
  }
  if (!in_range) {
    return absl::OutOfRangeError(
        "a gradient is larger than the exponent that its party told of it, or not finite; the step "
        "cannot be summed");
  }
  failed_ = false;
  return absl::OkStatus();
}

absl::Status MaskedFixedPoint(const float* values, size_t count, const FixedPoint& scale,
                              const RoundingKey& rounding, const MaskPlace& place,
                              std::span<const wire::PartyIndex> peers, PairwiseMasks& masks,
                              uint32_t* out) {
  PCMOE_ASSIGN_OR_RETURN(MaskedWriter writer,
                         MaskedWriter::Create(scale, rounding, place, peers, masks));
  return writer.Append(values, count, out);
}

absl::Status MaskIntegers(const uint32_t* values, size_t count, const MaskPlace& place,
                          std::span<const wire::PartyIndex> peers, PairwiseMasks& masks,
                          uint32_t* out) {
  PCMOE_ASSIGN_OR_RETURN(NetMask mask, NetMask::Create(masks, place, peers));
  const MaskLoops& loops = ActiveMaskLoops();
  for (size_t at = 0; at < count; at += NetMask::kBlockWords) {
    PCMOE_ASSIGN_OR_RETURN(const MaskPair pair, mask.NextBlock());
    const size_t piece = std::min(count - at, NetMask::kBlockWords);
    std::copy_n(values + at, piece, out + at);
    loops.combine(out + at, false, pair.first, pair.subtract_first, piece);
    loops.combine(out + at, false, pair.second, pair.subtract_second, piece);
  }
  return absl::OkStatus();
}

void AddInto(uint32_t* sum, const uint8_t* share, size_t count) {
  ActiveMaskLoops().add(sum, share, count);
}

void DecodeSum(const uint32_t* sum, size_t count, const FixedPoint& scale, float* add_to) {
  ActiveMaskLoops().decode(sum, count, std::ldexp(1.0, -scale.shift), add_to);
}

}  // namespace pcmoe::border
