// pcmoe/base/cpu_level.h: which of the loops that are compiled once per CPU feature level to run.
#pragma once

#include <cstdlib>
#include <string_view>

namespace pcmoe::base {

/// kAvx2: AVX2 and FMA. kAvx512: those, and AVX-512 F, BW, DQ and VL.
enum class CpuLevel { kBaseline, kAvx2, kAvx512 };

/// What this processor has, or less when PCMOE_CPU=avx2 or baseline in the environment asks for it
/// (for tests, and for parties with mixed machines). Thread-safe.
inline CpuLevel ActiveCpuLevel() {
  // NOLINTNEXTLINE(concurrency-mt-unsafe): nothing here ever sets the environment.
  const char* asked = std::getenv("PCMOE_CPU");
  const std::string_view level = asked == nullptr ? "" : asked;
  if (level == "baseline") return CpuLevel::kBaseline;
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return CpuLevel::kBaseline;
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return avx512 && level != "avx2" ? CpuLevel::kAvx512 : CpuLevel::kAvx2;
}

}  // namespace pcmoe::base
