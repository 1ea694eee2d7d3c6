// pcmoe/optim/adamw.cc: see adamw.h.
#include "pcmoe/optim/adamw.h"

#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <limits>
#include <set>

namespace pcmoe::optim {

AdamW::AdamW(std::vector<Trainable> trainables, AdamWOptions options)
    : trainables_(std::move(trainables)), options_(options) {
  for (const Trainable& trainable : trainables_) {
    exp_avg_.push_back(at::zeros_like(trainable.weight));
    exp_avg_sq_.push_back(at::zeros_like(trainable.weight));
    step_tensors_.push_back(at::full({}, 0.0, at::kFloat));
  }
}

void AdamW::set_step(int64_t step) {
  step_ = step;
  for (at::Tensor& tensor : step_tensors_) tensor.fill_(static_cast<double>(step));
}

void AdamW::StepGroup(bool decay, double scale, double learning_rate,
                      const std::optional<at::Tensor>& inverse_scale) {
  std::vector<at::Tensor> weights, gradients, first, second, steps;
  for (size_t i = 0; i < trainables_.size(); ++i) {
    if (trainables_[i].decay != decay || trainables_[i].learning_rate_scale != scale) continue;
    weights.push_back(trainables_[i].weight);
    gradients.push_back(trainables_[i].gradient);
    first.push_back(exp_avg_[i]);
    second.push_back(exp_avg_sq_[i]);
    steps.push_back(step_tensors_[i]);
  }
  if (weights.empty()) return;
  at::_fused_adamw_(weights, gradients, first, second, /*max_exp_avg_sqs=*/{}, steps,
                    scale * learning_rate, options_.beta1, options_.beta2,
                    decay ? options_.weight_decay : 0.0, options_.eps, /*amsgrad=*/false,
                    /*maximize=*/false, inverse_scale);
}

void AdamW::Step(double learning_rate, double gradient_scale) {
  set_step(step_ + 1);
  // The kernel divides by it; a scale of exactly one is left out, so that no rounding happens.
  std::optional<at::Tensor> scale;
  if (gradient_scale != 1.0) {
    constexpr double kLargest = std::numeric_limits<float>::max();
    scale = at::full({}, std::min(1.0 / gradient_scale, kLargest), at::kFloat);
  }
  std::set<double> rate_scales;
  for (const Trainable& trainable : trainables_) rate_scales.insert(trainable.learning_rate_scale);
  for (const double rate_scale : rate_scales) {
    StepGroup(true, rate_scale, learning_rate, scale);
    StepGroup(false, rate_scale, learning_rate, scale);
  }
}

}  // namespace pcmoe::optim
