// pcmoe/base/random.h: named random streams from one seed, and the system's secure randomness.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

namespace pcmoe::base {

/// A 64-bit seed for the stream called `name`: the same (seed, name) always gives the same value,
/// different names give unrelated ones (BLAKE2b). Name streams like "init/model.norm.weight".
uint64_t SeedOf(uint64_t seed, std::string_view name);

/// A reproducible stream keyed by a secret: ChaCha20 under a 32-byte key, one stream a nonce.
/// Without the key its output cannot be told from random. Satisfies UniformRandomBitGenerator.
/// Not thread-safe.
class KeyedStream {
 public:
  using result_type = uint64_t;
  using Key = std::array<uint8_t, 32>;
  /// `nonce` is hashed with the key, so it may be any text, like "rows/step/7/layer/2/peer/1".
  KeyedStream(const Key& key, std::string_view nonce);
  static constexpr result_type min() { return 0; }
  static constexpr result_type max() { return ~result_type{0}; }
  result_type operator()();
  /// Uniform in [0, bound), by rejection; bound > 0.
  uint64_t Below(uint64_t bound);
  ~KeyedStream();
  KeyedStream(const KeyedStream&) = delete;
  KeyedStream& operator=(const KeyedStream&) = delete;

 private:
  Key stream_key_;
  uint64_t block_ = 0;
  size_t next_;
  std::array<uint64_t, 64> buffer_{};
};

/// Fills `bytes` from the operating system's CSPRNG; never seedable.
void FillSecure(std::span<uint8_t> bytes);

}  // namespace pcmoe::base
