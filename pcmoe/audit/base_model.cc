// pcmoe/audit/base_model.cc: see base_model.h.
#include "pcmoe/audit/base_model.h"

#include <ATen/ops/argmax.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "pcmoe/eval/batches.h"

namespace pcmoe::audit {
namespace {

// Keeps copies of what passes the seam between a model and its experts.
class Tap final : public model::ExpertProvider {
 public:
  Tap(model::ExpertProvider& inner, const model::ModelConfig& config)
      : inner_(inner),
        experts_(config.num_experts),
        x_(static_cast<size_t>(config.num_layers)),
        q_(static_cast<size_t>(config.num_layers)),
        gate_(static_cast<size_t>(config.num_layers)) {}

  absl::Status BeginForward(int64_t layer) override { return inner_.BeginForward(layer); }
  absl::Status Dispatch(int64_t layer, int64_t micro_batch, const at::Tensor& h_td,
                        const model::Routing& routing) override {
    const auto l = static_cast<size_t>(layer);
    x_[l].push_back(h_td.to(at::kFloat, false, /*copy=*/true));
    at::Tensor gate = at::zeros({h_td.size(0), experts_});
    gate.scatter_(1, routing.experts_tk, routing.weights_tk);
    gate_[l].push_back(gate);
    return inner_.Dispatch(layer, micro_batch, h_td, routing);
  }
  absl::StatusOr<at::Tensor> Combine(int64_t layer, int64_t micro_batch) override {
    return inner_.Combine(layer, micro_batch);
  }
  absl::Status BeginBackward(int64_t layer) override { return inner_.BeginBackward(layer); }
  absl::Status DispatchGradient(int64_t layer, int64_t micro_batch,
                                const at::Tensor& dy_td) override {
    q_[static_cast<size_t>(layer)].push_back(dy_td.to(at::kFloat, false, /*copy=*/true));
    return inner_.DispatchGradient(layer, micro_batch, dy_td);
  }
  absl::StatusOr<model::ExpertInputGradients> CombineGradient(int64_t layer,
                                                              int64_t micro_batch) override {
    return inner_.CombineGradient(layer, micro_batch);
  }
  absl::Status EndBackward(int64_t layer) override { return inner_.EndBackward(layer); }
  absl::Status EndForward(int64_t layer) override { return inner_.EndForward(layer); }
  absl::Status BeginPass(const model::PassPlan& plan) override { return inner_.BeginPass(plan); }
  absl::Status FinishPass() override { return inner_.FinishPass(); }
  void Reset() override { inner_.Reset(); }

  // Joined over the pieces; empty tensors for layers without experts.
  static std::vector<at::Tensor> Joined(const std::vector<std::vector<at::Tensor>>& pieces) {
    std::vector<at::Tensor> joined;
    for (const auto& layer : pieces)
      joined.push_back(layer.empty() ? at::Tensor() : at::cat(layer));
    return joined;
  }
  std::vector<at::Tensor> x() const { return Joined(x_); }
  std::vector<at::Tensor> q() const { return Joined(q_); }
  std::vector<at::Tensor> gate() const { return Joined(gate_); }

 private:
  model::ExpertProvider& inner_;
  const int64_t experts_;
  std::vector<std::vector<at::Tensor>> x_, q_, gate_;
};

}  // namespace

model::MicroBatch BatchOf(std::span<const data::Sequence> sequences) {
  std::vector<const data::Sequence*> rows;
  for (const data::Sequence& sequence : sequences) rows.push_back(&sequence);
  return eval::ToMicroBatch(rows);
}

at::Tensor NextTokens(std::span<const data::Sequence> sequences) {
  std::vector<int64_t> next;
  for (const data::Sequence& sequence : sequences) {
    for (size_t t = 0; t < sequence.labels.size(); ++t) {
      const int32_t label = t + 1 < sequence.labels.size() ? sequence.labels[t + 1] : -1;
      next.push_back(label < 0 ? -1 : label);
    }
  }
  at::Tensor result = at::empty({static_cast<int64_t>(next.size())}, at::kLong);
  std::copy(next.begin(), next.end(), result.mutable_data_ptr<int64_t>());
  return result;
}

BaseModel::BaseModel(model::ModelConfig config, model::BackboneParameters backbone,
                     model::ExpertParameters experts)
    : config_(std::move(config)) {
  backbone_ =
      std::make_unique<model::Backbone>(config_, std::move(backbone), model::Backbone::Options{});
  shard_ = std::make_unique<model::ExpertShard>(config_, std::move(experts),
                                                model::ExpertShard::Options{});
  experts_ = std::make_unique<model::LocalExperts>(*shard_);
}

absl::StatusOr<std::unique_ptr<BaseModel>> BaseModel::Load(const std::filesystem::path& folder) {
  PCMOE_ASSIGN_OR_RETURN(model::ModelConfig config, model::LoadConfig(folder));
  model::BackboneParameters backbone = model::EmptyBackbone(config);
  model::ExpertParameters experts = model::EmptyExperts(config, model::AllExperts(config));
  PCMOE_RETURN_IF_ERROR(model::LoadCheckpoint(folder, config, backbone, experts));
  return std::make_unique<BaseModel>(std::move(config), std::move(backbone), std::move(experts));
}

absl::StatusOr<Capture> BaseModel::Run(std::span<const data::Sequence> sequences, bool gradients,
                                       int64_t at_once) {
  Tap tap(*experts_, config_);
  std::vector<at::Tensor> tokens, guesses;
  for (size_t first = 0; first < sequences.size(); first += static_cast<size_t>(at_once)) {
    const auto piece =
        sequences.subspan(first, std::min(static_cast<size_t>(at_once), sequences.size() - first));
    const model::MicroBatch batch = BatchOf(piece);
    tokens.push_back(batch.tokens_bs.flatten());
    PCMOE_RETURN_IF_ERROR(tap.BeginPass({.micro_batches_p = {1}, .training = gradients}));
    if (gradients) {
      const int64_t count = model::CountLossTokens(batch, false);
      PCMOE_RETURN_IF_ERROR(
          backbone_
              ->ForwardBackward({&batch, 1}, tap,
                                1.0 / static_cast<double>(std::max<int64_t>(count, 1)), {})
              .status());
    } else {
      PCMOE_ASSIGN_OR_RETURN(const at::Tensor logits, backbone_->Logits(batch, tap));
      guesses.push_back(at::argmax(logits, -1).flatten());
    }
    PCMOE_RETURN_IF_ERROR(tap.FinishPass());
  }
  Capture capture{.x_td = tap.x(), .gate_te = tap.gate()};
  if (gradients) capture.q_td = tap.q();
  if (!tokens.empty()) capture.tokens_t = at::cat(tokens);
  if (!guesses.empty()) capture.guess_t = at::cat(guesses);
  capture.labels_t = NextTokens(sequences);
  backbone_->ResetGradients();
  shard_->Reset();
  return capture;
}

absl::Status BaseModel::Gradients(std::span<const data::Sequence> sequences) {
  backbone_->ResetGradients();
  shard_->Reset();
  const model::MicroBatch batch = BatchOf(sequences);
  PCMOE_RETURN_IF_ERROR(experts_->BeginPass({.micro_batches_p = {1}}));
  PCMOE_RETURN_IF_ERROR(backbone_->ForwardBackward({&batch, 1}, *experts_, 1.0, {}).status());
  return experts_->FinishPass();
}

absl::StatusOr<std::vector<double>> BaseModel::Losses(std::span<const data::Sequence> sequences) {
  std::vector<double> losses;
  for (const data::Sequence& sequence : sequences) {
    const model::MicroBatch batch = BatchOf({&sequence, 1});
    PCMOE_RETURN_IF_ERROR(experts_->BeginPass({.micro_batches_p = {1}, .training = false}));
    PCMOE_ASSIGN_OR_RETURN(const model::PassResult result,
                           backbone_->Evaluate({&batch, 1}, *experts_));
    PCMOE_RETURN_IF_ERROR(experts_->FinishPass());
    losses.push_back(result.loss_sum /
                     static_cast<double>(std::max<int64_t>(result.loss_tokens, 1)));
  }
  return losses;
}

absl::StatusOr<at::Tensor> BaseModel::Continue(std::span<const data::Sequence> sequences,
                                               int64_t prompt, int64_t tokens, int64_t at_once) {
  std::vector<at::Tensor> result;
  for (size_t first = 0; first < sequences.size(); first += static_cast<size_t>(at_once)) {
    const auto piece =
        sequences.subspan(first, std::min(static_cast<size_t>(at_once), sequences.size() - first));
    model::MicroBatch batch = BatchOf(piece);
    batch.document_starts.assign(piece.size(), {0});
    batch.tokens_bs = batch.tokens_bs.narrow(1, 0, prompt).contiguous();
    for (int64_t t = 0; t < tokens; ++t) {
      batch.labels_bs = batch.tokens_bs;
      PCMOE_RETURN_IF_ERROR(experts_->BeginPass({.micro_batches_p = {1}, .training = false}));
      PCMOE_ASSIGN_OR_RETURN(const at::Tensor logits, backbone_->Logits(batch, *experts_));
      PCMOE_RETURN_IF_ERROR(experts_->FinishPass());
      batch.tokens_bs = at::cat({batch.tokens_bs, at::argmax(logits.select(1, -1), 1, true)}, 1);
    }
    result.push_back(batch.tokens_bs.narrow(1, prompt, tokens));
  }
  return at::cat(result);
}

}  // namespace pcmoe::audit
