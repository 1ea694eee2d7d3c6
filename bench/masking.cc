// bench/masking.cc: measures the figure `masking`: one thread, four parties, gradients of one unit.
//
// masking cipher: the two key streams alone. masking masked: fixed point, stochastic rounding and
// the two masks. Prints {"gradient_gb_s": ..} (10^9 bytes of fp32 gradients a second) and, for
// `masked`, the loops in use.
#include <time.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <string_view>
#include <vector>

#include "pcmoe/border/fixed_point.h"
#include "pcmoe/border/mask_loops.h"

namespace {

using pcmoe::border::CounterStream;

constexpr size_t kUnitValues = size_t{6} << 20;  // an expert of OLMoE-1B-7B: 3 x 1024 x 2048
constexpr double kSeconds = 1.5;

// Of this thread on its core: whatever else runs on the machine, a second and core is meant.
double Seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Calls `run` (one unit) until kSeconds are over; gradient bytes a second, in 10^9.
template <typename Run>
double Measure(Run run) {
  if (!run(0)) return NAN;
  const double begin = Seconds();
  double units = 0;
  while (Seconds() - begin < kSeconds) {
    if (!run(static_cast<uint32_t>(++units))) return NAN;
  }
  return units * kUnitValues * sizeof(float) / (Seconds() - begin) / 1e9;
}

double MeasureCipher() {
  // 16 KiB at a time, as `openssl speed` does at its best.
  std::vector<uint8_t> block(16384);
  return Measure([&](uint32_t unit) {
    for (uint8_t peer = 0; peer < 2; ++peer) {
      auto stream = CounterStream::Create({peer}, {static_cast<uint8_t>(unit)});
      if (!stream.ok()) return false;
      for (size_t at = 0; at < kUnitValues * sizeof(float); at += block.size()) {
        if (!stream->Fill(std::span<uint8_t>(block)).ok()) return false;
      }
    }
    return true;
  });
}

double MeasureMasked() {
  using namespace pcmoe::border;  // NOLINT: a program of one page
  std::vector<MaskKeyPair> keys;
  std::vector<MaskPublicKey> public_keys;
  for (int party = 0; party < 4; ++party) {
    keys.push_back(MaskKeyPair::Generate());
    public_keys.push_back(keys.back().public_key());
  }
  auto masks = PairwiseMasks::Create(1, keys[1], public_keys, {});
  const auto rounding = RoundingKey::Derive({7}, {});
  std::vector<float> values(kUnitValues);
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = std::sin(static_cast<float>(i)) * 1e-3F;
  }
  const std::vector<uint8_t> exponents(3, ExponentOf(values));
  const auto scale = FixedPoint::For(exponents, 3);
  if (!masks.ok() || !rounding.ok() || !scale.ok()) return NAN;
  std::vector<uint32_t> share(kUnitValues);
  const std::vector<int> peers = {0, 2};  // party 3 owns the unit
  return Measure([&](uint32_t unit) {
    return MaskedFixedPoint(values.data(), values.size(), *scale, *rounding, {1, 0, unit}, peers,
                            *masks, share.data())
        .ok();
  });
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view side = argc == 2 ? argv[1] : "";
  if (side != "cipher" && side != "masked") {
    std::fputs("usage: masking cipher|masked\n", stderr);
    return 4;
  }
  const double speed = side == "cipher" ? MeasureCipher() : MeasureMasked();
  if (std::isnan(speed)) {
    std::fputs("masking: the masks cannot be made\n", stderr);
    return 1;
  }
  std::printf("{\"gradient_gb_s\": %.4f, \"loops\": \"%s\"}\n", speed,
              pcmoe::border::ActiveMaskLoops().name);
  return 0;
}
