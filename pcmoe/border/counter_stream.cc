// pcmoe/border/counter_stream.cc: see counter_stream.h.
#include "pcmoe/border/counter_stream.h"

#include <openssl/err.h>
#include <openssl/evp.h>

#include <algorithm>

namespace pcmoe::border {
namespace {

// CTR mode adds its stream to what it is given; zeros leave the stream itself.
alignas(64) constexpr std::array<uint8_t, 16384> kZeros{};

absl::Status Failed() {
  ERR_clear_error();
  return absl::InternalError("OpenSSL cannot make an AES-128-CTR stream; is its library whole?");
}

}  // namespace

void CounterStream::Free::operator()(evp_cipher_ctx_st* context) const {
  EVP_CIPHER_CTX_free(context);
}

absl::StatusOr<CounterStream> CounterStream::Create(const Key& key, const Block& first) {
  // Looked up once: a lookup costs more than the first kilobytes of a stream.
  static const EVP_CIPHER* const cipher = EVP_CIPHER_fetch(nullptr, "AES-128-CTR", nullptr);
  std::unique_ptr<evp_cipher_ctx_st, Free> context(EVP_CIPHER_CTX_new());
  if (cipher == nullptr || context == nullptr ||
      EVP_EncryptInit_ex2(context.get(), cipher, key.data(), first.data(), nullptr) != 1) {
    return Failed();
  }
  return CounterStream(std::move(context));
}

absl::Status CounterStream::Fill(std::span<uint8_t> out) {
  while (!out.empty()) {
    const size_t piece = std::min(out.size(), kZeros.size());
    int written = 0;
    if (EVP_EncryptUpdate(context_.get(), out.data(), &written, kZeros.data(),
                          static_cast<int>(piece)) != 1 ||
        written != static_cast<int>(piece)) {
      return Failed();
    }
    out = out.subspan(piece);
  }
  return absl::OkStatus();
}

absl::Status CounterStream::Fill(std::span<uint32_t> out, Ahead& ahead) {
  // Two memories, eight lines each: as many as a core waits for at a time (measured).
  constexpr size_t kPieceWords = 256;
  constexpr size_t kLines = 8;
  while (!out.empty()) {
    const size_t piece = std::min(out.size(), kPieceWords);
    ahead.Fetch(kLines);
    PCMOE_RETURN_IF_ERROR(Fill(out.first(piece)));
    out = out.subspan(piece);
  }
  return absl::OkStatus();
}

}  // namespace pcmoe::border
