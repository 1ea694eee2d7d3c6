// pcmoe/tensor/finite.cc: see finite.h. Integer compares of the exponent: vector code on any CPU.
#include "pcmoe/tensor/finite.h"

#include <cstdint>

namespace pcmoe::tensor {
namespace {

template <typename Bits>
bool NoneHas(const Bits* data, int64_t count, Bits exponent) {
  Bits bad = 0;
  for (int64_t i = 0; i < count; ++i) {
    bad = static_cast<Bits>(bad | static_cast<Bits>((data[i] & exponent) == exponent ? 1 : 0));
  }
  return bad == 0;
}

}  // namespace

bool AllFinite(const at::Tensor& x) {
  if (x.scalar_type() == at::kBFloat16) {
    return NoneHas<uint16_t>(static_cast<const uint16_t*>(x.const_data_ptr()), x.numel(), 0x7f80);
  }
  TORCH_CHECK(x.scalar_type() == at::kFloat, "AllFinite takes fp32 or bf16");
  return NoneHas<uint32_t>(static_cast<const uint32_t*>(x.const_data_ptr()), x.numel(),
                           0x7f800000U);
}

}  // namespace pcmoe::tensor
