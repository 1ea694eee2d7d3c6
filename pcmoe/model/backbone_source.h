// pcmoe/model/backbone_source.h: the seam between the computation of a backbone and its weights:
// all at home, or fetched a stage at a time (DESIGN 3.4). Shape legend: D hidden width, V
// vocabulary.
#pragma once

#include <ATen/core/Tensor.h>

#include "pcmoe/base/status.h"
#include "pcmoe/model/block.h"

namespace pcmoe::model {

/// One layer's backbone for a moment: weights in the compute dtype (norms fp32), and where its
/// gradients are added (fp32; undefined tensors when it is frozen).
struct BlockUse {
  const BlockWeights* weights = nullptr;
  BlockGradients* gradients = nullptr;
};

/// Likewise the embedding; the gradient is undefined when it is frozen, or in a forward.
struct EmbeddingUse {
  at::Tensor embedding_vd;   ///< fp32
  at::Tensor dembedding_vd;  ///< fp32
};

/// Likewise the last norm and the head; a frozen one has undefined gradients.
struct HeadUse {
  at::Tensor final_norm_d;   ///< fp32
  at::Tensor head_vd;        ///< Compute dtype.
  at::Tensor dfinal_norm_d;  ///< fp32
  at::Tensor dhead_vd;       ///< fp32; the embedding's gradient when they are tied.
};

/// Gives out the backbone, stage by stage, in the order of a pass: embedding; layers ascending;
/// head; layers descending; embedding again (in evaluation only the first three). A layer's block
/// can be used from the expert provider's Begin of that layer to its End. One thread.
class BackboneSource {
 public:
  virtual ~BackboneSource() = default;
  virtual absl::StatusOr<EmbeddingUse> BeginEmbedding() = 0;
  virtual absl::Status EndEmbedding() = 0;
  virtual BlockUse Block(int64_t layer) = 0;
  virtual absl::StatusOr<HeadUse> BeginHead() = 0;
  virtual absl::Status EndHead() = 0;
  virtual absl::StatusOr<EmbeddingUse> BeginEmbeddingBackward() = 0;
  virtual absl::Status EndEmbeddingBackward() = 0;
};

}  // namespace pcmoe::model
