// pcmoe/model/expert_provider.h: the seam between a model and its experts: local, remote or
// fetched. Shape legend: T tokens, D hidden width, K experts per token.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <optional>
#include <vector>

#include "pcmoe/base/status.h"

namespace pcmoe::model {

/// Which experts compute each token, and with which weight.
struct Routing {
  at::Tensor experts_tk;  ///< int64 [T, K], global ids, distinct within a row.
  at::Tensor weights_tk;  ///< float32 [T, K].
};

/// What comes back from the experts of one micro-batch in backward.
struct ExpertInputGradients {
  at::Tensor dh_td;        ///< Of the experts' input.
  at::Tensor dweights_tk;  ///< float32, of the routing weights.
};

/// What everybody brings to a pass over the layers.
struct PassPlan {
  std::vector<int64_t> micro_batches_p;  ///< By party.
  std::vector<int64_t> sweeps_p;         ///< Times each goes through all layers; 1 in training.
  bool training = true;                  ///< False: nothing is kept for backward.
};

/// Choices of the federation's tokens, for a balance loss over all of them.
struct FederationLoad {
  std::vector<int64_t> chosen_e;  ///< Per expert, summed over layers and slots.
  int64_t tokens = 0;             ///< Of all parties, summed over layers.
};

/// Computes y = sum_k weight_k * expert_k(h) for the tokens of this party, layer by layer, and the
/// gradients; the model cannot tell where. A pass is BeginPass, its layers, FinishPass. The calls
/// of every layer are BeginForward, Dispatch for every micro-batch in ascending order, Combine for
/// every micro-batch in ascending order, EndForward; then AwaitFederationLoad; then, layers
/// descending, the same with BeginBackward, DispatchGradient, CombineGradient, and EndBackward.
/// A layer without experts has its Begin and End only. Between a Dispatch and its Combine the
/// caller may compute something else. One thread.
class ExpertProvider {
 public:
  virtual ~ExpertProvider() = default;
  virtual absl::Status BeginForward(int64_t layer) = 0;
  /// `h_td` must stay unchanged until EndBackward of the layer.
  virtual absl::Status Dispatch(int64_t layer, int64_t micro_batch, const at::Tensor& h_td,
                                const Routing& routing) = 0;
  virtual absl::StatusOr<at::Tensor> Combine(int64_t layer, int64_t micro_batch) = 0;
  virtual absl::Status EndForward(int64_t) { return absl::OkStatus(); }
  /// In training: the choices that a balance loss over the federation counts; nothing when each
  /// party's own are meant.
  virtual absl::StatusOr<std::optional<FederationLoad>> AwaitFederationLoad() {
    return std::nullopt;
  }
  virtual absl::Status BeginBackward(int64_t layer) = 0;
  virtual absl::Status DispatchGradient(int64_t layer, int64_t micro_batch,
                                        const at::Tensor& dy_td) = 0;
  virtual absl::StatusOr<ExpertInputGradients> CombineGradient(int64_t layer,
                                                               int64_t micro_batch) = 0;
  /// The gradients of the layer's experts, summed over the step, are complete when this returns.
  virtual absl::Status EndBackward(int64_t layer) = 0;

  /// A pass over all layers starts; gradients are zero then in training, and stay as they are in
  /// evaluation.
  virtual absl::Status BeginPass(const PassPlan& plan) = 0;
  /// The pass is over for everybody: all gradients of the experts here are complete.
  virtual absl::Status FinishPass() = 0;
  /// The step of the pass was committed by all; called before the optimizers.
  virtual void Commit() {}
  /// Forgets a pass that was given up.
  virtual void Reset() = 0;
  /// State besides weights and moments, into a checkpoint folder; and back, when `step` steps were
  /// committed (an empty folder: the start).
  virtual absl::Status SaveState(const std::filesystem::path&) { return absl::OkStatus(); }
  virtual absl::Status LoadState(const std::filesystem::path&, int64_t) { return absl::OkStatus(); }
  /// Since the last call; for reports.
  struct Figures {
    int64_t rows_sent = 0;        ///< Distinct (token, remote owner) rows that left.
    int64_t transient_bytes = 0;  ///< Most bytes at a time of others' weights and gradients.
  };
  virtual Figures TakeFigures() { return {}; }
};

}  // namespace pcmoe::model
