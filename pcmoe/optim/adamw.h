// pcmoe/optim/adamw.h: AdamW (Loshchilov and Hutter 2019) by LibTorch's fused kernel.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "pcmoe/base/status.h"

namespace pcmoe::optim {

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0.0;  ///< Decoupled; only where a parameter asks for it.
};

/// One tensor to train: fp32 weight and gradient of one shape. The tensors are shared, not copied.
struct Trainable {
  at::Tensor weight;
  at::Tensor gradient;
  bool decay = true;  ///< Norms and biases do not decay (as in transformers' Trainer).
  double learning_rate_scale = 1.0;  ///< Of the learning rate that a step is given.
};

/// First and second moments of a list of tensors, and their step. One thread.
class AdamW {
 public:
  AdamW(std::vector<Trainable> trainables, AdamWOptions options);

  /// weight <- AdamW(weight, gradient * gradient_scale). Gradients are left scaled.
  void Step(double learning_rate, double gradient_scale);

  int64_t step() const { return step_; }
  const std::vector<Trainable>& trainables() const { return trainables_; }
  /// In the order of `trainables`: for checkpoints.
  std::vector<at::Tensor>& exp_avg() { return exp_avg_; }
  std::vector<at::Tensor>& exp_avg_sq() { return exp_avg_sq_; }
  void set_step(int64_t step);

 private:
  void StepGroup(bool decay, double scale, double learning_rate,
                 const std::optional<at::Tensor>& inverse_scale);

  std::vector<Trainable> trainables_;
  const AdamWOptions options_;
  std::vector<at::Tensor> exp_avg_, exp_avg_sq_, step_tensors_;
  int64_t step_ = 0;
};

}  // namespace pcmoe::optim
