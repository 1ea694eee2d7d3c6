// pcmoe/model/staged_logits.cc: a forward with one stage of the model here at a time (stages.h).
#include <map>
#include <numeric>

#include "pcmoe/model/backbone.h"
#include "pcmoe/model/local_experts.h"
#include "pcmoe/model/stages.h"

namespace pcmoe::model {
namespace {

absl::Status NoBackward() {
  return absl::InternalError("a model that comes in stages was asked for a backward");
}

// Backbone and experts of the stage that is here.
class StagedModel final : public BackboneSource, public ExpertProvider {
 public:
  StagedModel(const ModelConfig& config, const NextStage& next)
      : config_(config),
        next_(next),
        layer_(/*recompute=*/false),
        identity_e_(static_cast<size_t>(config.num_experts)) {
    std::iota(identity_e_.begin(), identity_e_.end(), 0);
  }

  absl::StatusOr<EmbeddingUse> BeginEmbedding() override {
    PCMOE_ASSIGN_OR_RETURN(here_, next_(EmbeddingStageOf(config_)));
    if (config_.tie_word_embeddings) tied_head_vd_ = here_.embedding_vd;
    return EmbeddingUse{here_.embedding_vd, {}};
  }
  absl::Status EndEmbedding() override {
    here_ = {};
    return absl::OkStatus();
  }
  absl::Status BeginForward(int64_t layer) override {
    outputs_.clear();
    PCMOE_ASSIGN_OR_RETURN(here_, next_(layer));
    return absl::OkStatus();
  }
  BlockUse Block(int64_t) override { return {&here_.block, nullptr}; }
  absl::Status Dispatch(int64_t, int64_t micro_batch, const at::Tensor& h_td,
                        const Routing& routing) override {
    PCMOE_ASSIGN_OR_RETURN(PairPlan plan, PlanPairs(PairsFor(routing, identity_e_), h_td.size(0),
                                                    config_.num_experts));
    outputs_[micro_batch] =
        layer_.Forward(here_.experts, {0, micro_batch}, h_td, std::move(plan), /*keep=*/false);
    return absl::OkStatus();
  }
  absl::StatusOr<at::Tensor> Combine(int64_t, int64_t micro_batch) override {
    return std::move(outputs_[micro_batch]);
  }
  absl::Status EndForward(int64_t) override {
    here_ = {};
    return absl::OkStatus();
  }
  absl::StatusOr<HeadUse> BeginHead() override {
    PCMOE_ASSIGN_OR_RETURN(here_, next_(HeadStageOf(config_)));
    return HeadUse{.final_norm_d = here_.final_norm_d,
                   .head_vd = config_.tie_word_embeddings ? tied_head_vd_ : here_.head_vd};
  }
  absl::Status EndHead() override { return EndEmbedding(); }

  absl::Status BeginPass(const PassPlan&) override { return absl::OkStatus(); }
  absl::Status FinishPass() override { return absl::OkStatus(); }
  void Reset() override {}
  absl::StatusOr<EmbeddingUse> BeginEmbeddingBackward() override { return NoBackward(); }
  absl::Status EndEmbeddingBackward() override { return NoBackward(); }
  absl::Status BeginBackward(int64_t) override { return NoBackward(); }
  absl::Status DispatchGradient(int64_t, int64_t, const at::Tensor&) override {
    return NoBackward();
  }
  absl::StatusOr<ExpertInputGradients> CombineGradient(int64_t, int64_t) override {
    return NoBackward();
  }
  absl::Status EndBackward(int64_t) override { return NoBackward(); }

 private:
  const ModelConfig& config_;
  const NextStage& next_;
  ExpertLayer layer_;
  std::vector<int32_t> identity_e_;
  StageTensors here_;
  at::Tensor tied_head_vd_;
  std::map<int64_t, at::Tensor> outputs_;  // by micro-batch
};

}  // namespace

absl::StatusOr<at::Tensor> StagedLogits(const ModelConfig& config, const at::Tensor& tokens_bs,
                                        const NextStage& next) {
  BackboneParameters elsewhere;
  elsewhere.layers.resize(static_cast<size_t>(config.num_layers));
  Backbone backbone(config, std::move(elsewhere), {});
  StagedModel model(config, next);
  backbone.SetSource(&model);
  return backbone.Logits({tokens_bs, tokens_bs, {}}, model);
}

}  // namespace pcmoe::model
