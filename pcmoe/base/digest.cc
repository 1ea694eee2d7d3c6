// pcmoe/base/digest.cc: see digest.h.
#include "pcmoe/base/digest.h"

#include <sodium.h>
#include <xxhash.h>

#include "pcmoe/base/file.h"

namespace pcmoe::base {

Sha256 DigestOf(std::string_view bytes) {
  Sha256 digest;
  crypto_hash_sha256(digest.data(), reinterpret_cast<const unsigned char*>(bytes.data()),
                     bytes.size());
  return digest;
}

absl::StatusOr<Sha256> DigestOfFile(const std::filesystem::path& path) {
  PCMOE_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
  Sha256 digest;
  crypto_hash_sha256(digest.data(), file.bytes().data(), file.bytes().size());
  return digest;
}

std::string ToHex(const Sha256& digest) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  hex.reserve(2 * digest.size());
  for (const uint8_t byte : digest) {
    hex.push_back(kDigits[byte >> 4]);
    hex.push_back(kDigits[byte & 15]);
  }
  return hex;
}

absl::StatusOr<Sha256> Sha256FromHex(std::string_view hex) {
  Sha256 digest;
  size_t length = 0;
  const char* end = nullptr;
  if (hex.size() != 2 * digest.size() ||
      sodium_hex2bin(digest.data(), digest.size(), hex.data(), hex.size(), nullptr, &length,
                     &end) != 0 ||
      length != digest.size()) {
    return absl::InvalidArgumentError("a SHA-256 digest is 64 hexadecimal digits");
  }
  return digest;
}

uint64_t Checksum(std::span<const uint8_t> bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

}  // namespace pcmoe::base
