// pcmoe/border/counter_stream.h: a key stream: AES-128 in counter mode; OpenSSL stays inside.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>

#include "pcmoe/base/status.h"

struct evp_cipher_ctx_st;  // OpenSSL's EVP_CIPHER_CTX

namespace pcmoe::border {

/// Memory that is needed soon: a cipher leaves the memory's channels idle, so a few cache lines are
/// asked for after each piece of a stream.
class Ahead {
 public:
  Ahead() = default;
  /// The first `bytes` bytes at both addresses.
  Ahead(const void* first, const void* second, size_t bytes)
      : first_(static_cast<const char*>(first)),
        second_(static_cast<const char*>(second)),
        bytes_(bytes) {}
  void Fetch(size_t lines) {
    for (; lines > 0 && at_ < bytes_; --lines, at_ += 64) {
      __builtin_prefetch(first_ + at_);
      __builtin_prefetch(second_ + at_);
    }
  }

 private:
  const char* first_ = nullptr;
  const char* second_ = nullptr;
  size_t bytes_ = 0;
  size_t at_ = 0;
};

/// The bytes of AES-128-CTR under one key from one counter block on (NIST SP 800-38A, 6.5; the
/// counter is the whole block, big-endian). Two streams may share a key only if their counters
/// never meet: see MaskPlace. Movable; its key is wiped at the end. Not thread-safe.
class CounterStream {
 public:
  using Key = std::array<uint8_t, 16>;
  using Block = std::array<uint8_t, 16>;

  /// INTERNAL when OpenSSL has no such cipher.
  static absl::StatusOr<CounterStream> Create(const Key& key, const Block& first);

  /// The next `out.size()` bytes of the stream. INTERNAL when OpenSSL fails.
  absl::Status Fill(std::span<uint8_t> out);
  absl::Status Fill(std::span<uint32_t> out) {
    return Fill(std::span<uint8_t>(reinterpret_cast<uint8_t*>(out.data()), out.size_bytes()));
  }
  /// The same, and fetches `ahead` meanwhile.
  absl::Status Fill(std::span<uint32_t> out, Ahead& ahead);

 private:
  struct Free {
    void operator()(evp_cipher_ctx_st* context) const;
  };
  explicit CounterStream(std::unique_ptr<evp_cipher_ctx_st, Free> context)
      : context_(std::move(context)) {}
  std::unique_ptr<evp_cipher_ctx_st, Free> context_;
};

}  // namespace pcmoe::border
