// pcmoe/model/linear.cc: see linear.h.
#include "pcmoe/model/linear.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sum.h>

#include "pcmoe/model/matmul.h"

namespace pcmoe::model {

at::Tensor Linear(const at::Tensor& x_td, const at::Tensor& w, const at::Tensor& bias) {
  if (x_td.scalar_type() == at::kFloat && bias.defined()) return at::addmm(bias, x_td, w.t());
  at::Tensor out = at::empty({x_td.size(0), w.size(0)}, x_td.options());
  MatmulTransposed(x_td, w, out);
  if (bias.defined()) out.add_(bias);
  return out;
}

at::Tensor LinearBackward(const at::Tensor& dy, const at::Tensor& w) {
  at::Tensor dx = at::empty({dy.size(0), w.size(1)}, dy.options());
  Matmul(dy, w, dx);
  return dx;
}

void AddWeightGradient(at::Tensor& gradient, const at::Tensor& dy, const at::Tensor& x) {
  if (!gradient.defined()) return;
  AddTransposedMatmul(dy, x, gradient);
}

void AddBiasGradient(at::Tensor& gradient, const at::Tensor& dy) {
  if (gradient.defined()) gradient.add_(at::sum(dy, {0}, false, at::kFloat));
}

void RefreshCopy(const at::Tensor& weight, at::ScalarType dtype, at::Tensor& copy) {
  if (!weight.defined() || weight.scalar_type() == dtype) {
    copy = weight;
    return;
  }
  if (!copy.defined()) copy = at::empty(weight.sizes(), weight.options().dtype(dtype));
  copy.copy_(weight);
}

}  // namespace pcmoe::model
