// pcmoe/model/loss.cc: see loss.h.
#include "pcmoe/model/loss.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/sum.h>

#include "pcmoe/model/kernels.h"
#include "pcmoe/model/linear.h"
#include "pcmoe/model/matmul.h"

namespace pcmoe::model {

HeadLoss HeadCrossEntropy(const at::Tensor& x_td, const at::Tensor& head_vd,
                          const at::Tensor& labels_t, double scale, int64_t chunk,
                          at::Tensor* head_gradient) {
  HeadLoss result;
  const int64_t tokens = x_td.size(0);
  if (head_gradient != nullptr) result.dx_td = at::empty_like(x_td);
  for (int64_t begin = 0; begin < tokens; begin += chunk) {
    const int64_t count = std::min(chunk, tokens - begin);
    const at::Tensor x = x_td.narrow(0, begin, count);
    at::Tensor logits = Linear(x, head_vd);
    at::Tensor loss = at::empty({count}, at::kFloat);
    kernels::CrossEntropy(logits, labels_t.narrow(0, begin, count), scale, loss);
    result.loss_sum += at::sum(loss, at::kDouble).item<double>();
    if (head_gradient == nullptr) continue;
    at::Tensor dx = result.dx_td.narrow(0, begin, count);
    Matmul(logits, head_vd, dx);
    AddWeightGradient(*head_gradient, logits, x);
  }
  return result;
}

}  // namespace pcmoe::model
