// pcmoe/model/linear.cc: see linear.h.
#include "pcmoe/model/linear.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sum.h>

namespace pcmoe::model {

at::Tensor Linear(const at::Tensor& x_td, const at::Tensor& w, const at::Tensor& bias) {
  return bias.defined() ? at::addmm(bias, x_td, w.t()) : at::mm(x_td, w.t());
}

void AddWeightGradient(at::Tensor& gradient, const at::Tensor& dy, const at::Tensor& x) {
  if (dy.scalar_type() == at::kFloat) {
    at::addmm_out(gradient, gradient, dy.t(), x);
  } else {
    gradient.add_(at::mm(dy.t(), x));
  }
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
