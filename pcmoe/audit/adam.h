// pcmoe/audit/adam.h: the optimizer of the attackers' networks.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace pcmoe::audit {

/// Adam (Kingma and Ba 2015), betas 0.9 and 0.99, no weight decay. One thread.
class Adam {
 public:
  /// Steps these weights in place; float.
  explicit Adam(std::vector<at::Tensor> weights);
  /// One gradient a weight, in the same order.
  void Step(const std::vector<at::Tensor>& gradients, double rate);

 private:
  std::vector<at::Tensor> weights_, first_, second_, steps_;
};

}  // namespace pcmoe::audit
