// pcmoe/border/mask_keys.cc: see mask_keys.h; key agreement and derivation.
#include "pcmoe/border/mask_keys.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <sodium.h>

#include <memory>

#include "pcmoe/base/random.h"

namespace pcmoe::border {

MaskKeyPair MaskKeyPair::Generate() {
  std::array<uint8_t, 32> secret{};
  base::FillSecure(secret);
  MaskKeyPair pair = FromSecret(secret);
  sodium_memzero(secret.data(), secret.size());
  return pair;
}

MaskKeyPair MaskKeyPair::FromSecret(const std::array<uint8_t, 32>& secret) {
  MaskKeyPair pair;
  pair.secret_ = secret;
  crypto_scalarmult_curve25519_base(pair.public_key_.data(), pair.secret_.data());
  return pair;
}

MaskKeyPair::~MaskKeyPair() { sodium_memzero(secret_.data(), secret_.size()); }

MaskKeyPair::MaskKeyPair(MaskKeyPair&& other) noexcept
    : secret_(other.secret_), public_key_(other.public_key_) {
  sodium_memzero(other.secret_.data(), other.secret_.size());
}

MaskKeyPair& MaskKeyPair::operator=(MaskKeyPair&& other) noexcept {
  if (this == &other) return *this;
  secret_ = other.secret_;
  public_key_ = other.public_key_;
  sodium_memzero(other.secret_.data(), other.secret_.size());
  return *this;
}

absl::StatusOr<std::array<uint8_t, 32>> MaskKeyPair::Agree(const MaskPublicKey& theirs) const {
  std::array<uint8_t, 32> shared{};
  if (crypto_scalarmult_curve25519(shared.data(), secret_.data(), theirs.data()) != 0) {
    return absl::InvalidArgumentError(
        "a party's mask key is of small order: an honest party never sends one");
  }
  return shared;
}

absl::Status Hkdf(std::span<const uint8_t> secret, std::span<const uint8_t> salt,
                  std::span<const uint8_t> info, std::span<uint8_t> out) {
  struct Free {
    void operator()(EVP_KDF* kdf) const { EVP_KDF_free(kdf); }
    void operator()(EVP_KDF_CTX* context) const { EVP_KDF_CTX_free(context); }
  };
  const std::unique_ptr<EVP_KDF, Free> kdf(EVP_KDF_fetch(nullptr, "HKDF", nullptr));
  const std::unique_ptr<EVP_KDF_CTX, Free> context(kdf == nullptr ? nullptr
                                                                  : EVP_KDF_CTX_new(kdf.get()));
  // OpenSSL's parameters are not const, though these are only read; and none may be null.
  static constexpr uint8_t kNothing = 0;
  const auto octets = [](const char* name, std::span<const uint8_t> bytes) {
    const uint8_t* const data = bytes.empty() ? &kNothing : bytes.data();
    return OSSL_PARAM_construct_octet_string(name, const_cast<uint8_t*>(data), bytes.size());
  };
  char digest[] = "SHA256";
  const OSSL_PARAM parameters[] = {
      OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
      octets(OSSL_KDF_PARAM_KEY, secret), octets(OSSL_KDF_PARAM_SALT, salt),
      octets(OSSL_KDF_PARAM_INFO, info), OSSL_PARAM_construct_end()};
  if (context == nullptr ||
      EVP_KDF_derive(context.get(), out.data(), out.size(), parameters) != 1) {
    ERR_clear_error();
    return absl::InternalError("OpenSSL cannot derive a key (HKDF-SHA256); is its library whole?");
  }
  return absl::OkStatus();
}

}  // namespace pcmoe::border
