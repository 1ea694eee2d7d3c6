// pcmoe/tensor/memory.h: counts the bytes that tensors hold, at the allocator.
#pragma once

#include <cstdint>

namespace pcmoe::tensor {

/// Makes LibTorch's CPU allocations counted and kept by the process between uses (a step frees and
/// takes the same blocks again; giving them back to the system costs a page fault for every 4 KiB).
/// Call once, before the first tensor.
void InstallCountingAllocator();

/// Bytes of live CPU tensors, and the most there were; 0 before InstallCountingAllocator.
uint64_t AllocatedBytes();
uint64_t PeakAllocatedBytes();
/// The peak is counted from here.
void ResetPeak();

}  // namespace pcmoe::tensor
