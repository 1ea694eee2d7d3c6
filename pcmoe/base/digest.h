// pcmoe/base/digest.h: digests of bytes: SHA-256 for identity, XXH3 for damage in transit.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "pcmoe/base/status.h"

namespace pcmoe::base {

using Sha256 = std::array<uint8_t, 32>;

/// SHA-256 (libsodium) of `bytes`.
Sha256 DigestOf(std::string_view bytes);

/// SHA-256 of a file's contents, read in pieces.
absl::StatusOr<Sha256> DigestOfFile(const std::filesystem::path& path);

/// Lower-case hexadecimal, and back; INVALID_ARGUMENT unless 64 hexadecimal digits.
std::string ToHex(const Sha256& digest);
absl::StatusOr<Sha256> Sha256FromHex(std::string_view hex);

/// XXH3-64: finds damage, is no protection against an attacker (TLS is).
uint64_t Checksum(std::span<const uint8_t> bytes);

}  // namespace pcmoe::base
