// pcmoe/border/byte_list.h: what is signed or derived from, field by field, little-endian.
#pragma once

#include <concepts>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace pcmoe::border {

/// A growing list of bytes. Fields of fixed length after one label cannot be mistaken for others.
class ByteList {
 public:
  /// Starts with `label`, which names what the bytes are for.
  explicit ByteList(std::string_view label) {
    bytes_.reserve(256);
    for (const char letter : label) bytes_.push_back(static_cast<uint8_t>(letter));
  }
  template <std::unsigned_integral T>
  ByteList& Number(T value) {
    for (size_t i = 0; i < sizeof(T); ++i) {
      bytes_.push_back(static_cast<uint8_t>(static_cast<uint64_t>(value) >> (8 * i)));
    }
    return *this;
  }
  ByteList& Append(std::span<const uint8_t> bytes) {
    for (const uint8_t byte : bytes) bytes_.push_back(byte);
    return *this;
  }
  ByteList& Zeros(size_t count) {
    bytes_.resize(bytes_.size() + count);
    return *this;
  }
  std::span<const uint8_t> bytes() const { return bytes_; }

 private:
  std::vector<uint8_t> bytes_;
};

}  // namespace pcmoe::border
