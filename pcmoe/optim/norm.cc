// pcmoe/optim/norm.cc: see norm.h.
#include "pcmoe/optim/norm.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <vector>

namespace pcmoe::optim {

double SumOfSquares(const at::Tensor& x) {
  constexpr int64_t kBlock = 16384;
  const int64_t count = x.numel();
  const float* data = x.const_data_ptr<float>();
  std::vector<double> partial(static_cast<size_t>((count + kBlock - 1) / kBlock));
  at::parallel_for(0, static_cast<int64_t>(partial.size()), 4, [&](int64_t first, int64_t last) {
    for (int64_t block = first; block < last; ++block) {
      const int64_t end = std::min(count, (block + 1) * kBlock);
      double sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t i = block * kBlock; i < end; ++i) {
        sum += static_cast<double>(data[i]) * static_cast<double>(data[i]);
      }
      partial[static_cast<size_t>(block)] = sum;
    }
  });
  double total = 0;
  for (const double sum : partial) total += sum;
  return total;
}

double ClipFactor(double norm, double max_norm) {
  if (max_norm <= 0) return 1.0;
  return std::min(1.0, max_norm / (norm + 1e-6));
}

}  // namespace pcmoe::optim
