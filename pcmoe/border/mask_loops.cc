// pcmoe/border/mask_loops.cc: see mask_loops.h; picks the loops.
#include "pcmoe/border/mask_loops.h"

#include "pcmoe/base/cpu_level.h"

namespace pcmoe::border {
namespace {

const MaskLoops& Choose() {
  switch (base::ActiveCpuLevel()) {
    case base::CpuLevel::kAvx512:
      return Avx512MaskLoops();
    case base::CpuLevel::kAvx2:
      return Avx2MaskLoops();
    case base::CpuLevel::kBaseline:
      break;
  }
  return BaselineMaskLoops();
}

}  // namespace

const MaskLoops& ActiveMaskLoops() {
  static const MaskLoops& loops = Choose();
  return loops;
}

}  // namespace pcmoe::border
