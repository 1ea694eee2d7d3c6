// pcmoe/audit/adam.cc: see adam.h.
#include "pcmoe/audit/adam.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

namespace pcmoe::audit {

Adam::Adam(std::vector<at::Tensor> weights) : weights_(std::move(weights)) {
  for (const at::Tensor& weight : weights_) {
    first_.push_back(at::zeros_like(weight));
    second_.push_back(at::zeros_like(weight));
    steps_.push_back(at::zeros({}, at::kFloat));
  }
}

void Adam::Step(const std::vector<at::Tensor>& gradients, double rate) {
  const at::NoGradGuard no_grad;
  for (at::Tensor& step : steps_) step.add_(1);
  at::_fused_adam_(weights_, gradients, first_, second_, {}, steps_, rate, /*beta1=*/0.9,
                   /*beta2=*/0.99, /*weight_decay=*/0, /*eps=*/1e-8, /*amsgrad=*/false,
                   /*maximize=*/false);
}

}  // namespace pcmoe::audit
