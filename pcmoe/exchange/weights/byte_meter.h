// pcmoe/exchange/weights/byte_meter.h: how many bytes of weights and gradients pass through.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>

namespace pcmoe::exchange {

/// Counts bytes that are held now, and the most that were at a time. Thread-safe.
class ByteMeter {
 public:
  void Add(int64_t bytes) {
    const int64_t now = now_.fetch_add(bytes) + bytes;
    int64_t peak = peak_.load();
    while (now > peak && !peak_.compare_exchange_weak(peak, now)) {
    }
  }
  void Remove(int64_t bytes) { now_.fetch_sub(bytes); }
  /// The most since the last call.
  int64_t TakePeak() { return peak_.exchange(now_.load()); }

 private:
  std::atomic<int64_t> now_{0}, peak_{0};
};

/// Adds bytes to `meter` for as long as the pointer, or a copy of it, lives; `keep` lives as long.
inline std::shared_ptr<void> Metered(std::shared_ptr<ByteMeter> meter, int64_t bytes, void* address,
                                     std::shared_ptr<void> keep = nullptr) {
  meter->Add(bytes);
  return std::shared_ptr<void>(address, [meter = std::move(meter), bytes,
                                         keep = std::move(keep)](void*) { meter->Remove(bytes); });
}

}  // namespace pcmoe::exchange
