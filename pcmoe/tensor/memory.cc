// pcmoe/tensor/memory.cc: see memory.h.
#include "pcmoe/tensor/memory.h"

#include <c10/core/CPUAllocator.h>
#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>

namespace pcmoe::tensor {
namespace {

constexpr size_t kAlignment = 64;  // also the space before a block, which holds its size

std::atomic<uint64_t> g_live{0};
std::atomic<uint64_t> g_peak{0};

void Free(void* data) {
  if (data == nullptr) return;
  char* block = static_cast<char*>(data) - kAlignment;
  uint64_t bytes = 0;
  std::memcpy(&bytes, block, sizeof(bytes));
  g_live.fetch_sub(bytes, std::memory_order_relaxed);
  std::free(block);
}

class CountingAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    if (bytes == 0) return {nullptr, nullptr, &Free, c10::Device(c10::DeviceType::CPU)};
    void* block = nullptr;
    if (::posix_memalign(&block, kAlignment, bytes + kAlignment) != 0) throw std::bad_alloc();
    const uint64_t size = bytes;
    std::memcpy(block, &size, sizeof(size));
    const uint64_t live = g_live.fetch_add(size, std::memory_order_relaxed) + size;
    uint64_t peak = g_peak.load(std::memory_order_relaxed);
    while (peak < live && !g_peak.compare_exchange_weak(peak, live)) {
    }
    void* data = static_cast<char*>(block) + kAlignment;
    return {data, data, &Free, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &Free; }
  void copy_data(void* target, const void* source, size_t count) const override {
    std::memcpy(target, source, count);
  }
};

}  // namespace

void InstallCountingAllocator() {
  static CountingAllocator allocator;
  // NOLINTBEGIN(concurrency-mt-unsafe): called before there are other threads.
  ::mallopt(M_MMAP_THRESHOLD, 1 << 30);
  ::mallopt(M_TRIM_THRESHOLD, 1 << 30);
  // NOLINTEND(concurrency-mt-unsafe)
  c10::SetCPUAllocator(&allocator, /*priority=*/100);
}

uint64_t AllocatedBytes() { return g_live.load(); }
uint64_t PeakAllocatedBytes() { return g_peak.load(); }
void ResetPeak() { g_peak.store(g_live.load()); }

}  // namespace pcmoe::tensor
