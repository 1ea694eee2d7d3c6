// pcmoe/federation/signature.cc: see signature.h.
#include "pcmoe/federation/signature.h"

#include <sodium.h>

#include <algorithm>
#include <span>

#include "absl/strings/ascii.h"

namespace pcmoe::federation {
namespace {

// Named, so that a signature of ours cannot be taken for one of something else by the same key.
std::string SignedBytes(const Manifest& manifest) {
  return "pcmoe manifest 1\n" + manifest.CanonicalJson();
}

const unsigned char* Bytes(const std::string& text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}

std::string Hex(std::span<const uint8_t> bytes) {
  std::string hex(2 * bytes.size() + 1, '\0');
  sodium_bin2hex(hex.data(), hex.size(), bytes.data(), bytes.size());
  hex.pop_back();
  return hex;
}

bool FromHex(std::string_view hex, std::span<uint8_t> bytes) {
  while (!hex.empty() && absl::ascii_isspace(static_cast<unsigned char>(hex.back()))) {
    hex.remove_suffix(1);
  }
  size_t length = 0;
  return hex.size() == 2 * bytes.size() &&
         sodium_hex2bin(bytes.data(), bytes.size(), hex.data(), hex.size(), nullptr, &length,
                        nullptr) == 0 &&
         length == bytes.size();
}

}  // namespace

SigningKey GenerateSigningKey() {
  SigningKey key;
  crypto_sign_keypair(key.public_key.data(), key.secret.data());
  return key;
}

std::string SecretToHex(const SigningKey& key) { return Hex(key.secret); }
std::string PublicToHex(const SigningKey& key) { return Hex(key.public_key); }

absl::StatusOr<SigningKey> SigningKeyFromHex(std::string_view secret_hex) {
  SigningKey key;
  if (!FromHex(secret_hex, key.secret)) {
    return absl::InvalidArgumentError("a signing key is 128 hexadecimal digits");
  }
  crypto_sign_ed25519_sk_to_pk(key.public_key.data(), key.secret.data());
  return key;
}

std::string SignManifest(const Manifest& manifest, const SigningKey& key) {
  const std::string bytes = SignedBytes(manifest);
  std::array<uint8_t, crypto_sign_BYTES> signature{};
  crypto_sign_detached(signature.data(), nullptr, Bytes(bytes), bytes.size(), key.secret.data());
  return Hex(signature);
}

absl::Status VerifySignature(const Manifest& manifest, std::string_view signature_hex,
                             std::string_view public_hex) {
  const std::string bytes = SignedBytes(manifest);
  std::array<uint8_t, crypto_sign_BYTES> signature{};
  std::array<uint8_t, crypto_sign_PUBLICKEYBYTES> public_key{};
  if (!FromHex(public_hex, public_key)) {
    return absl::UnauthenticatedError("the federation's public key is not 64 hexadecimal digits");
  }
  if (!FromHex(signature_hex, signature) ||
      crypto_sign_verify_detached(signature.data(), Bytes(bytes), bytes.size(),
                                  public_key.data()) != 0) {
    return absl::UnauthenticatedError(
        "the manifest is not signed by the federation's key; get manifest.json and manifest.sig "
        "again from whoever provisioned the federation");
  }
  return absl::OkStatus();
}

}  // namespace pcmoe::federation
