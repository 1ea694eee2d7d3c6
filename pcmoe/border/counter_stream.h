// pcmoe/border/counter_stream.h: a key stream: AES-128 in counter mode; OpenSSL stays inside.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>

#include "pcmoe/base/status.h"

struct evp_cipher_ctx_st;  // OpenSSL's EVP_CIPHER_CTX

namespace pcmoe::border {

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

 private:
  struct Free {
    void operator()(evp_cipher_ctx_st* context) const;
  };
  explicit CounterStream(std::unique_ptr<evp_cipher_ctx_st, Free> context)
      : context_(std::move(context)) {}
  std::unique_ptr<evp_cipher_ctx_st, Free> context_;
};

}  // namespace pcmoe::border
