// pcmoe/exchange/weights/weights_provider.h: experts (and aggregated backbone) that are fetched to
// the tokens; no row of tokens leaves (DESIGN 3.3, 3.4). Shape legend: T tokens, D hidden width, K
// experts per token.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "pcmoe/base/random.h"
#include "pcmoe/exchange/session/session.h"
#include "pcmoe/exchange/weights/gradient_sums.h"
#include "pcmoe/exchange/weights/held_gradients.h"
#include "pcmoe/exchange/weights/mask_agreement.h"
#include "pcmoe/exchange/weights/stage_fetcher.h"
#include "pcmoe/model/backbone.h"
#include "pcmoe/model/expert_provider.h"
#include "pcmoe/model/expert_shard.h"

namespace pcmoe::exchange {

/// The home side and the owner's side of `weights`: a stage's weights come from their owners, this
/// party's tokens are computed at home with the kernels of ExpertLayer, and the gradients of
/// others' units leave as masked shares. Bytes, kinds, order and receivers of all messages are the
/// same whatever the data. Results do not depend on arrival: sums are integers. One thread calls.
class WeightsProvider final : public model::ExpertProvider, public model::BackboneSource {
 public:
  struct Options {
    int64_t min_rows = 0;       ///< Of the federation, below which an expert's gradients are held.
    bool keep_fetched = false;  ///< Keep a pass's weights for backward instead of fetching again.
    bool int8 = false;          ///< Matrices travel as int8 with a scale per row.
    bool allow_pairwise = false;
    bool recompute = false;  ///< As ExpertLayer's.
  };
  struct Secrets {
    MaskKeySigner signer;
    wire::RunId run{};
    base::KeyedStream::Key rounding{};  ///< This party's own; stochastic rounding runs on it.
  };
  /// All outlive this. `backbone` holds what BackboneOwners::HoldingsOf says; it is made to take
  /// its stages from here. FAILED_PRECONDITION for fewer than three parties without allow_pairwise.
  static absl::StatusOr<std::unique_ptr<WeightsProvider>> Create(
      const model::ModelConfig& config, const ExpertMap& map, const BackboneOwners& owners,
      model::ExpertShard& shard, model::Backbone& backbone, Session& session,
      const Options& options, Secrets secrets);
  ~WeightsProvider() override { backbone_.SetSource(nullptr); }

  absl::Status BeginPass(const model::PassPlan& plan) override;
  absl::Status BeginForward(int64_t layer) override;
  absl::Status Dispatch(int64_t layer, int64_t micro_batch, const at::Tensor& h_td,
                        const model::Routing& routing) override;
  absl::StatusOr<at::Tensor> Combine(int64_t layer, int64_t micro_batch) override;
  absl::Status EndForward(int64_t layer) override;
  absl::StatusOr<std::optional<model::FederationLoad>> AwaitFederationLoad() override;
  absl::Status BeginBackward(int64_t layer) override;
  absl::Status DispatchGradient(int64_t layer, int64_t micro_batch,
                                const at::Tensor& dy_td) override;
  absl::StatusOr<model::ExpertInputGradients> CombineGradient(int64_t layer,
                                                              int64_t micro_batch) override;
  absl::Status EndBackward(int64_t layer) override;
  absl::Status FinishPass() override;
  void Commit() override;
  void Reset() override;
  absl::Status SaveState(const std::filesystem::path& folder) override;
  absl::Status LoadState(const std::filesystem::path& folder, int64_t step) override;
  Figures TakeFigures() override { return {.transient_bytes = meter_->TakePeak()}; }

  absl::StatusOr<model::EmbeddingUse> BeginEmbedding() override;
  absl::Status EndEmbedding() override;
  model::BlockUse Block(int64_t layer) override;
  absl::StatusOr<model::HeadUse> BeginHead() override;
  absl::Status EndHead() override;
  absl::StatusOr<model::EmbeddingUse> BeginEmbeddingBackward() override;
  absl::Status EndEmbeddingBackward() override;

 private:
  WeightsProvider(const model::ModelConfig& config, const ExpertMap& map,
                  const BackboneOwners& owners, model::ExpertShard& shard,
                  model::Backbone& backbone, Session& session, const Options& options,
                  Secrets secrets, const border::RoundingKey& rounding);
  StageTensors OwnWeights(int stage);
  StageTensors OwnGradients(int stage);
  std::vector<Visit> VisitsOf(int64_t sweeps) const;
  absl::Status ShareCounts();
  StageTensors& Here(int stage) { return here_[static_cast<size_t>(stage)]; }
  StageTensors& Gradients(int stage) { return gradients_[static_cast<size_t>(stage)]; }
  bool Tied() const { return config_.tie_word_embeddings; }

  const model::ModelConfig config_;
  const BackboneModes modes_;
  const Options options_;
  const StageUnits units_;
  model::ExpertShard& shard_;
  model::Backbone& backbone_;
  Session& session_;
  MaskAgreement agreement_;
  HeldGradients held_;
  const std::shared_ptr<ByteMeter> meter_ = std::make_shared<ByteMeter>();
  StageFetcher fetcher_;
  GradientSums sums_;

  std::vector<model::ExpertLayer> layers_;
  std::vector<StageTensors> here_, gradients_;  // of the stages in use
  bool training_ = true;
  uint64_t version_ = 0;  // committed steps
  std::vector<int32_t> identity_e_;
  std::map<std::pair<int64_t, int64_t>, model::Routing> routing_;  // layer, micro-batch
  std::map<int64_t, at::Tensor> outputs_;                          // by micro-batch
  std::map<int64_t, model::ExpertInputGradients> input_gradients_;
  std::vector<uint32_t> counts_le_;  // rows of this party; [layer x E], layers without experts too
};

}  // namespace pcmoe::exchange
