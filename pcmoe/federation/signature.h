// pcmoe/federation/signature.h: the manifest's signature (Ed25519) by the federation's key.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "pcmoe/federation/manifest.h"

namespace pcmoe::federation {

/// Ed25519. The secret key stays with whoever provisions; parties hold the public one.
struct SigningKey {
  std::array<uint8_t, 64> secret{};
  std::array<uint8_t, 32> public_key{};
};

SigningKey GenerateSigningKey();
/// Lower-case hexadecimal of the secret and the public key, and back.
std::string SecretToHex(const SigningKey& key);
std::string PublicToHex(const SigningKey& key);
absl::StatusOr<SigningKey> SigningKeyFromHex(std::string_view secret_hex);

/// Signature of the manifest's canonical bytes, 128 hexadecimal digits.
std::string SignManifest(const Manifest& manifest, const SigningKey& key);

/// UNAUTHENTICATED unless `signature_hex` is the signature of `manifest` by `public_hex`. White
/// space around the two is ignored.
absl::Status VerifySignature(const Manifest& manifest, std::string_view signature_hex,
                             std::string_view public_hex);

}  // namespace pcmoe::federation
