// pcmoe/model/backbone.h: the layer-major step (DESIGN 3.1): every micro-batch through layer l
// before layer l+1 starts, forward and backward, with the experts behind a provider. Shape legend:
// B sequences, S length, T = B x S tokens, D hidden width, V vocabulary.
#pragma once

#include <ATen/core/Tensor.h>

#include <span>
#include <vector>

#include "pcmoe/model/backbone_source.h"
#include "pcmoe/model/block.h"
#include "pcmoe/model/expert_provider.h"

namespace pcmoe::model {

/// Tokens of one micro-batch.
struct MicroBatch {
  at::Tensor tokens_bs;  ///< int64 [B, S], in [0, V).
  at::Tensor labels_bs;  ///< int64 [B, S]; labels[t] is the token at t; negative: no loss for it.
  /// Per sequence, where its documents start; used when documents are isolated.
  std::vector<std::vector<int64_t>> document_starts;
};

/// Asks how likely a token is after the tokens up to a place: log softmax of the logits there.
struct TokenQuery {
  int64_t row = 0;    ///< Of the micro-batch, counted through its sequences: in [0, B x S).
  int64_t token = 0;  ///< In [0, V).
};

/// What is asked of each micro-batch of an evaluation.
using TokenQueries = std::vector<std::vector<TokenQuery>>;

/// Tokens of `batch` that the loss is taken over (labels shifted by one, as transformers does).
int64_t CountLossTokens(const MicroBatch& batch, bool isolate_documents);

/// What a pass found.
struct PassResult {
  double loss_sum = 0;  ///< Cross entropy in nats, summed over the loss tokens.
  int64_t loss_tokens = 0;
  double balance_loss = 0;  ///< Of this party's tokens; K when even. 0 without sparse layers.
  /// Choices per expert in each layer; empty for a dense layer.
  std::vector<std::vector<int64_t>> load_le;
  /// In nats, by micro-batch, in the order of its queries; empty when nothing was asked.
  std::vector<std::vector<double>> log_probs = {};
};

/// Factors of the balance loss.
struct BalanceWeight {
  double own = 0;         ///< Of the loss over this party's tokens: coefficient x share of tokens.
  double federation = 0;  ///< Of the loss over everybody's, where the provider knows it.
};

/// A party's backbone: fp32 master weights, gradients, and the computation. One thread calls.
class Backbone {
 public:
  struct Options {
    at::ScalarType compute_dtype = at::kFloat;  ///< kFloat or kBFloat16.
    bool recompute = false;          ///< Keep a segment's input only; run it again in backward.
    bool isolate_documents = false;  ///< Packed documents do not see each other.
    int64_t loss_chunk = 1024;       ///< Rows of logits that exist at a time.
    bool freeze_embedding = false;   ///< No gradient is made of it; likewise, the last norm and the
    bool freeze_head = false;        ///< head;
    bool freeze_blocks = false;      ///< and all layers.
  };
  /// `weights` may lack layers, embedding or head (undefined tensors) when a source gives them out.
  Backbone(const ModelConfig& config, BackboneParameters weights, Options options);

  /// From now on stages come from `source` (null: all are at home), which outlives this.
  void SetSource(BackboneSource* source) { source_ = source; }

  /// Call after every change of the weights.
  void RefreshComputeWeights();

  /// One forward and backward over all micro-batches (possibly none, when this party has no data);
  /// gradients of loss_scale * sum(cross entropy) + balance coefficient * balance loss are added.
  /// Within a pass of `experts` begun with training true. An error of the provider is returned;
  /// gradients are then partial and must be Reset.
  absl::StatusOr<PassResult> ForwardBackward(std::span<const MicroBatch> batches,
                                             ExpertProvider& experts, double loss_scale,
                                             BalanceWeight balance_weight);

  /// Forward only, within a pass begun with training false; the provider sees the micro-batches
  /// under numbers from `first_micro_batch` on, so that a long evaluation can be cut into pieces.
  /// `queries`: none, or one list a micro-batch.
  absl::StatusOr<PassResult> Evaluate(std::span<const MicroBatch> batches, ExpertProvider& experts,
                                      int64_t first_micro_batch = 0,
                                      std::span<const std::vector<TokenQuery>> queries = {});

  /// Forward only, likewise: fp32 logits [B, S, V].
  absl::StatusOr<at::Tensor> Logits(const MicroBatch& batch, ExpertProvider& experts);

  void ResetGradients();
  /// The stages at home, as a source may give them out: undefined where they are elsewhere.
  BlockUse HomeBlock(int64_t layer);
  /// The fp32 master weights of the same, fused as they travel.
  const BlockWeights& MasterBlock(int64_t layer) const {
    return layers_[static_cast<size_t>(layer)].master;
  }
  EmbeddingUse HomeEmbedding() const;
  HeadUse HomeHead() const;
  const BackboneParameters& weights() const { return weights_; }
  BackboneParameters& mutable_weights() { return weights_; }
  const BackboneParameters& gradients() const { return gradients_; }
  const Options& options() const { return options_; }
  const ModelConfig& config() const { return config_; }

 private:
  struct Prepared;  // a micro-batch's tokens, shifted labels and shape
  struct Layer {
    BlockWeights master, compute;
    BlockGradients gradients;
  };
  Prepared Prepare(const MicroBatch& batch);
  at::Tensor Embed(const EmbeddingUse& use, const Prepared& batch) const;
  BlockUse UseBlock(int64_t layer);
  absl::Status ForwardLayers(std::span<const Prepared> batches, ExpertProvider& experts,
                             int64_t first_micro_batch, std::vector<at::Tensor>& x,
                             BalanceLoss* balance, std::vector<std::vector<BlockState>>* states);
  absl::Status ForwardLayer(int64_t layer, std::span<const Prepared> batches,
                            ExpertProvider& experts, int64_t first_micro_batch,
                            std::vector<at::Tensor>& x, std::vector<BlockState>& states);
  absl::Status BackwardLayer(int64_t layer, std::span<const Prepared> batches,
                             ExpertProvider& experts, const std::vector<float>& dprobability_e,
                             std::vector<at::Tensor>& dx, std::vector<BlockState>& states);
  absl::StatusOr<std::vector<at::Tensor>> HeadForwardBackward(std::span<const Prepared> batches,
                                                              std::vector<at::Tensor>& x,
                                                              double loss_scale,
                                                              PassResult& result);
  at::Tensor HeadBackward(HeadUse& use, const Prepared& batch, const at::Tensor& x_td,
                          double loss_scale, PassResult& result);
  std::vector<double> Answer(const HeadUse& use, const at::Tensor& x_td,
                             std::span<const TokenQuery> queries) const;
  absl::Status EmbeddingBackward(std::span<const Prepared> batches,
                                 const std::vector<at::Tensor>& dx);
  void KeepInputOnly(BlockState& state) const;
  bool Sparse(int64_t layer) const { return config_.sparse_layers[static_cast<size_t>(layer)]; }

  const ModelConfig config_;
  const Options options_;
  BackboneParameters weights_;
  BackboneParameters gradients_;  // undefined where weights_ are, or are frozen
  BackboneSource* source_ = nullptr;
  std::vector<Layer> layers_;
  at::Tensor head_;  // compute dtype
  RopeTable rope_;
};

}  // namespace pcmoe::model
