// pcmoe/model/backbone.cc: see backbone.h.
#include "pcmoe/model/backbone.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>

#include "pcmoe/model/kernels.h"
#include "pcmoe/model/linear.h"
#include "pcmoe/model/loss.h"
#include "pcmoe/model/slots.h"

namespace pcmoe::model {
namespace {

// labels[t + 1] under row t; the last row of a sequence, and of an isolated document, has none.
at::Tensor ShiftedLabels(const MicroBatch& batch, bool isolate_documents) {
  const int64_t sequences = batch.labels_bs.size(0);
  const int64_t length = batch.labels_bs.size(1);
  at::Tensor shifted = at::full({sequences * length}, -100, at::kLong);
  const at::Tensor labels = batch.labels_bs.contiguous();
  const int64_t* source = labels.const_data_ptr<int64_t>();
  int64_t* target = shifted.mutable_data_ptr<int64_t>();
  for (int64_t b = 0; b < sequences; ++b) {
    std::copy_n(source + b * length + 1, length - 1, target + b * length);
    if (!isolate_documents || batch.document_starts.empty()) continue;
    for (const int64_t start : batch.document_starts[static_cast<size_t>(b)]) {
      if (start > 0) target[b * length + start - 1] = -100;
    }
  }
  return shifted;
}

int64_t CountLabels(const at::Tensor& labels_t) {
  const int64_t* labels = labels_t.const_data_ptr<int64_t>();
  return std::count_if(labels, labels + labels_t.numel(), [](int64_t label) { return label >= 0; });
}

// The rows that the loss is taken over: all of a micro-batch, or a copy of those with a label.
struct LabelledRows {
  at::Tensor x_rd, labels_r;
  at::Tensor index_r;  // undefined: all rows
  int64_t count = 0;   // rows with a label
};

LabelledRows RowsWithLabels(const at::Tensor& x_td, const at::Tensor& labels_t) {
  LabelledRows rows{.x_rd = x_td, .labels_r = labels_t, .count = CountLabels(labels_t)};
  if (2 * rows.count > x_td.size(0)) return rows;
  rows.index_r = (labels_t >= 0).nonzero().flatten();
  rows.x_rd = x_td.index_select(0, rows.index_r);
  rows.labels_r = labels_t.index_select(0, rows.index_r);
  return rows;
}

void RefreshBlock(const BlockWeights& master, at::ScalarType dtype, BlockWeights& compute) {
  if (!master.input_norm.defined()) return;  // elsewhere
  compute.input_norm = master.input_norm;
  compute.post_norm = master.post_norm;
  compute.attention.q_norm = master.attention.q_norm;
  compute.attention.k_norm = master.attention.k_norm;
  RefreshCopy(master.attention.qkv, dtype, compute.attention.qkv);
  RefreshCopy(master.attention.qkv_bias, dtype, compute.attention.qkv_bias);
  RefreshCopy(master.attention.o, dtype, compute.attention.o);
  RefreshCopy(master.attention.o_bias, dtype, compute.attention.o_bias);
  RefreshCopy(master.router, dtype, compute.router);
  RefreshCopy(master.shared_gate, dtype, compute.shared_gate);
  RefreshCopy(master.mlp.gate_up, dtype, compute.mlp.gate_up);
  RefreshCopy(master.mlp.down, dtype, compute.mlp.down);
}

void AddEmbeddingGradient(const at::Tensor& tokens_t, const at::Tensor& dx_td, int64_t pad_token,
                          at::Tensor& gradient_vd) {
  const at::Tensor dx = dx_td.to(at::kFloat).contiguous();
  const int64_t width = dx.size(1);
  const float* source = dx.const_data_ptr<float>();
  float* target = gradient_vd.mutable_data_ptr<float>();
  const int64_t* tokens = tokens_t.const_data_ptr<int64_t>();
  for (int64_t t = 0; t < dx.size(0); ++t, source += width) {
    if (tokens[t] == pad_token) continue;  // as torch's Embedding with padding_idx
    float* row = target + tokens[t] * width;
    for (int64_t i = 0; i < width; ++i) row[i] += source[i];
  }
}

// Storage for the gradients of the weights that are here and not frozen.
BackboneParameters GradientsFor(const ModelConfig& config, const BackboneParameters& weights,
                                const Backbone::Options& options) {
  BackboneParameters gradients = weights;  // copies no numbers
  if (options.freeze_embedding) gradients.embedding_vd = at::Tensor();
  if (options.freeze_head) gradients.final_norm_d = gradients.head_vd = at::Tensor();
  if (options.freeze_blocks) gradients.layers.assign(weights.layers.size(), {});
  for (const Slot& slot : BackboneSlots(config, gradients)) {
    if (slot.tensor->defined()) *slot.tensor = at::empty_like(*slot.tensor);
  }
  if (config.tie_word_embeddings) gradients.head_vd = gradients.embedding_vd;
  return gradients;
}

}  // namespace

struct Backbone::Prepared {
  at::Tensor tokens_t, labels_t;
  BatchShape shape;
};

int64_t CountLossTokens(const MicroBatch& batch, bool isolate_documents) {
  return CountLabels(ShiftedLabels(batch, isolate_documents));
}

Backbone::Backbone(const ModelConfig& config, BackboneParameters weights, Options options)
    : config_(config),
      options_(options),
      weights_(std::move(weights)),
      gradients_(GradientsFor(config, weights_, options)) {
  for (size_t l = 0; l < weights_.layers.size(); ++l) {
    layers_.emplace_back();
    if (!weights_.layers[l].input_norm_d.defined()) continue;
    layers_.back() = {FuseStorage(weights_.layers[l]), {}, FuseStorage(gradients_.layers[l])};
  }
  ResetGradients();
  RefreshComputeWeights();
  rope_ = RopeTable::Create(config_, config_.max_position_embeddings);
}

void Backbone::RefreshComputeWeights() {
  for (Layer& layer : layers_) RefreshBlock(layer.master, options_.compute_dtype, layer.compute);
  if (weights_.head_vd.defined()) RefreshCopy(weights_.head_vd, options_.compute_dtype, head_);
}

void Backbone::ResetGradients() {
  for (NamedTensor& gradient : NamedBackbone(config_, gradients_)) gradient.tensor.zero_();
}

Backbone::Prepared Backbone::Prepare(const MicroBatch& batch) {
  Prepared prepared;
  const int64_t sequences = batch.tokens_bs.size(0);
  const int64_t length = batch.tokens_bs.size(1);
  prepared.tokens_t = batch.tokens_bs.reshape({-1});
  prepared.labels_t = ShiftedLabels(batch, options_.isolate_documents);
  prepared.shape.sequences = sequences;
  prepared.shape.length = length;
  if (options_.isolate_documents) prepared.shape.document_starts = batch.document_starts;
  if (length > rope_.cos.size(0)) rope_ = RopeTable::Create(config_, length);
  prepared.shape.positions_t = at::empty({sequences * length}, at::kInt);
  int32_t* positions = prepared.shape.positions_t.mutable_data_ptr<int32_t>();
  for (int64_t b = 0; b < sequences; ++b) {
    int64_t start = 0;
    size_t next = 0;
    for (int64_t s = 0; s < length; ++s) {
      if (!prepared.shape.document_starts.empty()) {
        const auto& starts = prepared.shape.document_starts[static_cast<size_t>(b)];
        if (next < starts.size() && starts[next] == s) start = starts[next++];
      }
      positions[b * length + s] = static_cast<int32_t>(s - start);
    }
  }
  return prepared;
}

BlockUse Backbone::HomeBlock(int64_t layer) {
  Layer& home = layers_[static_cast<size_t>(layer)];
  return {&home.compute, &home.gradients};
}

EmbeddingUse Backbone::HomeEmbedding() const {
  return {weights_.embedding_vd, gradients_.embedding_vd};
}

HeadUse Backbone::HomeHead() const {
  return {weights_.final_norm_d, head_, gradients_.final_norm_d, gradients_.head_vd};
}

BlockUse Backbone::UseBlock(int64_t layer) {
  return source_ != nullptr ? source_->Block(layer) : HomeBlock(layer);
}

at::Tensor Backbone::Embed(const EmbeddingUse& use, const Prepared& batch) const {
  return at::embedding(use.embedding_vd, batch.tokens_t).to(options_.compute_dtype);
}

absl::Status Backbone::EmbeddingBackward(std::span<const Prepared> batches,
                                         const std::vector<at::Tensor>& dx) {
  EmbeddingUse use = HomeEmbedding();
  if (source_ != nullptr) {
    PCMOE_ASSIGN_OR_RETURN(use, source_->BeginEmbeddingBackward());
  }
  for (size_t m = 0; use.dembedding_vd.defined() && m < batches.size(); ++m) {
    AddEmbeddingGradient(batches[m].tokens_t, dx[m], config_.pad_token_id, use.dembedding_vd);
  }
  return source_ != nullptr ? source_->EndEmbeddingBackward() : absl::OkStatus();
}

void Backbone::KeepInputOnly(BlockState& state) const {
  if (!options_.recompute) return;
  at::Tensor x_td = std::move(state.x_td);
  state = BlockState();
  state.x_td = std::move(x_td);
}

absl::Status Backbone::ForwardLayer(int64_t layer, std::span<const Prepared> batches,
                                    ExpertProvider& experts, int64_t first_micro_batch,
                                    std::vector<at::Tensor>& x, std::vector<BlockState>& states) {
  PCMOE_RETURN_IF_ERROR(experts.BeginForward(layer));
  const BlockUse use = UseBlock(layer);
  for (size_t m = 0; m < batches.size(); ++m) {
    x[m] = BlockForward(config_, Sparse(layer), *use.weights, rope_, batches[m].shape, x[m],
                        states[m]);
    if (!Sparse(layer)) continue;
    PCMOE_RETURN_IF_ERROR(experts.Dispatch(layer, first_micro_batch + static_cast<int64_t>(m),
                                           states[m].h_td, states[m].router.routing));
  }
  for (size_t m = 0; Sparse(layer) && m < batches.size(); ++m) {
    PCMOE_ASSIGN_OR_RETURN(const at::Tensor y_td,
                           experts.Combine(layer, first_micro_batch + static_cast<int64_t>(m)));
    x[m] = x[m] + y_td;
  }
  return experts.EndForward(layer);
}

absl::Status Backbone::ForwardLayers(std::span<const Prepared> batches, ExpertProvider& experts,
                                     int64_t first_micro_batch, std::vector<at::Tensor>& x,
                                     BalanceLoss* balance,
                                     std::vector<std::vector<BlockState>>* states) {
  EmbeddingUse use = HomeEmbedding();
  if (source_ != nullptr) {
    PCMOE_ASSIGN_OR_RETURN(use, source_->BeginEmbedding());
  }
  for (const Prepared& batch : batches) x.push_back(Embed(use, batch));
  use = {};
  if (source_ != nullptr) PCMOE_RETURN_IF_ERROR(source_->EndEmbedding());
  for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
    std::vector<BlockState> layer_states(batches.size());
    PCMOE_RETURN_IF_ERROR(
        ForwardLayer(layer, batches, experts, first_micro_batch, x, layer_states));
    for (BlockState& state : layer_states) {
      if (Sparse(layer) && balance != nullptr) balance->Add(layer, state.router);
      KeepInputOnly(state);
    }
    if (states != nullptr) states->push_back(std::move(layer_states));
  }
  return absl::OkStatus();
}

// Logits are made of the rows with a label only: in supervised rows these are few.
at::Tensor Backbone::HeadBackward(HeadUse& use, const Prepared& batch, const at::Tensor& x_td,
                                  double loss_scale, PassResult& result) {
  const LabelledRows rows = RowsWithLabels(x_td, batch.labels_t);
  result.loss_tokens += rows.count;
  at::Tensor dx_td = at::zeros_like(x_td);
  if (rows.count == 0) return dx_td;
  at::Tensor normed = at::empty_like(rows.x_rd);
  at::Tensor rstd_r = at::empty({rows.x_rd.size(0)}, at::kFloat);
  kernels::RmsNorm(rows.x_rd, use.final_norm_d, config_.rms_norm_eps, normed, rstd_r);
  HeadLoss head = HeadCrossEntropy(normed, use.head_vd, rows.labels_r, loss_scale,
                                   options_.loss_chunk, &use.dhead_vd);
  result.loss_sum += head.loss_sum;
  at::Tensor dx_rd = rows.index_r.defined() ? at::zeros_like(rows.x_rd) : dx_td;
  kernels::RmsNormBackward(head.dx_td, rows.x_rd, use.final_norm_d, rstd_r, dx_rd,
                           use.dfinal_norm_d);
  if (rows.index_r.defined()) dx_td.index_copy_(0, rows.index_r, dx_rd);
  return dx_td;
}

absl::StatusOr<std::vector<at::Tensor>> Backbone::HeadForwardBackward(
    std::span<const Prepared> batches, std::vector<at::Tensor>& x, double loss_scale,
    PassResult& result) {
  HeadUse use = HomeHead();
  if (source_ != nullptr) {
    PCMOE_ASSIGN_OR_RETURN(use, source_->BeginHead());
  }
  std::vector<at::Tensor> dx;
  for (size_t m = 0; m < batches.size(); ++m) {
    dx.push_back(HeadBackward(use, batches[m], x[m], loss_scale, result));
    x[m] = at::Tensor();
  }
  use = {};
  if (source_ != nullptr) PCMOE_RETURN_IF_ERROR(source_->EndHead());
  return dx;
}

absl::Status Backbone::BackwardLayer(int64_t layer, std::span<const Prepared> batches,
                                     ExpertProvider& experts,
                                     const std::vector<float>& dprobability_e,
                                     std::vector<at::Tensor>& dx, std::vector<BlockState>& states) {
  const bool sparse = Sparse(layer);
  // Below the lowest experts nothing learns: nobody asks for the gradient there.
  const bool asked = layer > 0 || !options_.freeze_blocks || !options_.freeze_embedding;
  PCMOE_RETURN_IF_ERROR(experts.BeginBackward(layer));
  const BlockUse use = UseBlock(layer);
  for (size_t m = 0; sparse && m < batches.size(); ++m) {
    PCMOE_RETURN_IF_ERROR(experts.DispatchGradient(layer, static_cast<int64_t>(m), dx[m]));
  }
  for (size_t m = 0; m < batches.size(); ++m) {
    if (asked && options_.recompute) {
      const at::Tensor x_td = states[m].x_td;
      BlockForward(config_, sparse, *use.weights, rope_, batches[m].shape, x_td, states[m]);
    }
    ExpertInputGradients from_experts;
    if (sparse) {
      PCMOE_ASSIGN_OR_RETURN(from_experts, experts.CombineGradient(layer, static_cast<int64_t>(m)));
    }
    if (!asked) continue;
    dx[m] = BlockBackward(config_, sparse, *use.weights, rope_, batches[m].shape, dx[m],
                          from_experts, dprobability_e, states[m], *use.gradients);
  }
  return experts.EndBackward(layer);
}

absl::StatusOr<PassResult> Backbone::ForwardBackward(std::span<const MicroBatch> micro_batches,
                                                     ExpertProvider& experts, double loss_scale,
                                                     BalanceWeight balance_weight) {
  std::vector<Prepared> batches;
  for (const MicroBatch& batch : micro_batches) batches.push_back(Prepare(batch));
  std::vector<at::Tensor> x;
  std::vector<std::vector<BlockState>> states;
  BalanceLoss balance(config_.num_layers, config_.num_experts);
  PCMOE_RETURN_IF_ERROR(ForwardLayers(batches, experts, 0, x, &balance, &states));

  PassResult result;
  PCMOE_ASSIGN_OR_RETURN(std::vector<at::Tensor> dx,
                         HeadForwardBackward(batches, x, loss_scale, result));
  result.balance_loss = balance.Value();
  result.load_le = balance.chosen_le();
  PCMOE_ASSIGN_OR_RETURN(const std::optional<FederationLoad> load, experts.AwaitFederationLoad());
  std::vector<float> dprobability_e = load ? BalanceLoss::Gradient(*load) : balance.Gradient();
  const double factor = load ? balance_weight.federation : balance_weight.own;
  for (float& value : dprobability_e) value *= static_cast<float>(factor);
  for (int64_t layer = config_.num_layers - 1; layer >= 0; --layer) {
    PCMOE_RETURN_IF_ERROR(BackwardLayer(layer, batches, experts, dprobability_e, dx,
                                        states[static_cast<size_t>(layer)]));
    states.pop_back();
  }
  PCMOE_RETURN_IF_ERROR(EmbeddingBackward(batches, dx));
  return result;
}

std::vector<double> Backbone::Answer(const HeadUse& use, const at::Tensor& x_td,
                                     std::span<const TokenQuery> queries) const {
  std::vector<double> answers(queries.size());
  for (size_t begin = 0; begin < queries.size();) {
    // Queries of one row, and of at most a chunk of rows, share their logits.
    std::vector<int64_t> rows;
    std::vector<int64_t> place;
    size_t end = begin;
    for (; end < queries.size(); ++end) {
      if (rows.empty() || rows.back() != queries[end].row) {
        if (static_cast<int64_t>(rows.size()) == options_.loss_chunk) break;
        rows.push_back(queries[end].row);
      }
      place.push_back(static_cast<int64_t>(rows.size()) - 1);
    }
    const at::Tensor x_rd = x_td.index_select(0, at::tensor(rows, at::kLong));
    at::Tensor rstd_r = at::empty({x_rd.size(0)}, at::kFloat);
    at::Tensor normed = at::empty_like(x_rd);
    kernels::RmsNorm(x_rd, use.final_norm_d, config_.rms_norm_eps, normed, rstd_r);
    const at::Tensor log_probs =
        at::log_softmax(Linear(normed, use.head_vd).to(at::kFloat), -1).contiguous();
    const float* values = log_probs.const_data_ptr<float>();
    for (size_t i = begin; i < end; ++i) {
      answers[i] = values[place[i - begin] * log_probs.size(1) + queries[i].token];
    }
    begin = end;
  }
  return answers;
}

absl::StatusOr<PassResult> Backbone::Evaluate(std::span<const MicroBatch> micro_batches,
                                              ExpertProvider& experts, int64_t first_micro_batch,
                                              std::span<const std::vector<TokenQuery>> queries) {
  std::vector<Prepared> batches;
  for (const MicroBatch& batch : micro_batches) batches.push_back(Prepare(batch));
  std::vector<at::Tensor> x;
  BalanceLoss balance(config_.num_layers, config_.num_experts);
  PCMOE_RETURN_IF_ERROR(ForwardLayers(batches, experts, first_micro_batch, x, &balance, nullptr));
  HeadUse use = HomeHead();
  if (source_ != nullptr) {
    PCMOE_ASSIGN_OR_RETURN(use, source_->BeginHead());
  }
  PassResult result;
  for (size_t m = 0; m < batches.size(); ++m) {
    const LabelledRows rows = RowsWithLabels(x[m], batches[m].labels_t);
    result.loss_tokens += rows.count;
    if (rows.count > 0) {
      at::Tensor rstd_r = at::empty({rows.x_rd.size(0)}, at::kFloat);
      at::Tensor normed = at::empty_like(rows.x_rd);
      kernels::RmsNorm(rows.x_rd, use.final_norm_d, config_.rms_norm_eps, normed, rstd_r);
      result.loss_sum +=
          HeadCrossEntropy(normed, use.head_vd, rows.labels_r, 1.0, options_.loss_chunk, nullptr)
              .loss_sum;
    }
    if (!queries.empty()) result.log_probs.push_back(Answer(use, x[m], queries[m]));
  }
  use = {};
  if (source_ != nullptr) PCMOE_RETURN_IF_ERROR(source_->EndHead());
  result.balance_loss = balance.Value();
  result.load_le = balance.chosen_le();
  return result;
}

absl::StatusOr<at::Tensor> Backbone::Logits(const MicroBatch& batch, ExpertProvider& experts) {
  const std::vector<Prepared> batches = {Prepare(batch)};
  std::vector<at::Tensor> x;
  PCMOE_RETURN_IF_ERROR(ForwardLayers(batches, experts, 0, x, nullptr, nullptr));
  HeadUse use = HomeHead();
  if (source_ != nullptr) {
    PCMOE_ASSIGN_OR_RETURN(use, source_->BeginHead());
  }
  at::Tensor rstd_t = at::empty({x[0].size(0)}, at::kFloat);
  at::Tensor normed = at::empty_like(x[0]);
  kernels::RmsNorm(x[0], use.final_norm_d, config_.rms_norm_eps, normed, rstd_t);
  at::Tensor logits = Linear(normed, use.head_vd)
                          .to(at::kFloat)
                          .view({batch.tokens_bs.size(0), batch.tokens_bs.size(1), -1});
  use = {};
  if (source_ != nullptr) PCMOE_RETURN_IF_ERROR(source_->EndHead());
  return logits;
}

}  // namespace pcmoe::model
