// pcmoe/base/random.cc: see random.h.
#include "pcmoe/base/random.h"

#include <sodium.h>

#include <cstring>
#include <tuple>

namespace pcmoe::base {

uint64_t SeedOf(uint64_t seed, std::string_view name) {
  uint64_t result = 0;
  std::array<uint8_t, crypto_generichash_BYTES_MIN> hash{};
  std::array<uint8_t, crypto_generichash_KEYBYTES_MIN> key{};
  std::memcpy(key.data(), &seed, sizeof(seed));
  crypto_generichash(hash.data(), hash.size(), reinterpret_cast<const unsigned char*>(name.data()),
                     name.size(), key.data(), key.size());
  std::memcpy(&result, hash.data(), sizeof(result));
  return result;
}

KeyedStream::KeyedStream(const Key& key, std::string_view nonce)
    : next_(std::tuple_size_v<decltype(buffer_)>) {
  static_assert(std::tuple_size_v<Key> == crypto_stream_chacha20_KEYBYTES);
  crypto_generichash(stream_key_.data(), stream_key_.size(),
                     reinterpret_cast<const unsigned char*>(nonce.data()), nonce.size(), key.data(),
                     key.size());
}

KeyedStream::~KeyedStream() { sodium_memzero(stream_key_.data(), stream_key_.size()); }

KeyedStream::result_type KeyedStream::operator()() {
  if (next_ == buffer_.size()) {
    std::array<uint8_t, crypto_stream_chacha20_NONCEBYTES> nonce{};
    std::memcpy(nonce.data(), &block_, sizeof(block_));
    ++block_;
    crypto_stream_chacha20(reinterpret_cast<unsigned char*>(buffer_.data()), sizeof(buffer_),
                           nonce.data(), stream_key_.data());
    next_ = 0;
  }
  return buffer_[next_++];
}

uint64_t KeyedStream::Below(uint64_t bound) {
  const uint64_t limit = max() - max() % bound;
  uint64_t value = (*this)();
  while (value >= limit) value = (*this)();
  return value % bound;
}

void FillSecure(std::span<uint8_t> bytes) { randombytes_buf(bytes.data(), bytes.size()); }

}  // namespace pcmoe::base
