// pcmoe/model/loss.h: head and cross entropy over chunks of tokens, gradient formed in place.
// Shape legend: T tokens, D hidden width, V vocabulary.
#pragma once

#include <ATen/core/Tensor.h>

namespace pcmoe::model {

/// Sum of the losses, and what follows from it when gradients are wanted.
struct HeadLoss {
  double loss_sum = 0;  ///< nats, over tokens with a label
  at::Tensor dx_td;     ///< dL/dx of the normed input; undefined without gradients
};

/// `labels_t` int64 [T], negative: ignored; row t's logits are compared with labels_t[t] (already
/// shifted). `scale` multiplies the gradient. With `head_gradient` (fp32 [V, D]) gradients are
/// formed and added. At most `chunk` rows of logits exist at a time.
HeadLoss HeadCrossEntropy(const at::Tensor& x_td, const at::Tensor& head_vd,
                          const at::Tensor& labels_t, double scale, int64_t chunk,
                          at::Tensor* head_gradient);

}  // namespace pcmoe::model
