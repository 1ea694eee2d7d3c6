// pcmoe/model/local_experts.h: all experts at home: the centralised run, and the reference for the
// rest.
#pragma once

#include <map>

#include "pcmoe/model/expert_provider.h"
#include "pcmoe/model/expert_shard.h"

namespace pcmoe::model {

/// Sorted-out (row, expert) pairs of a micro-batch; `local_index_e` maps a global id to the shard's
/// index, negative for experts that are elsewhere.
std::vector<RowExpert> PairsFor(const Routing& routing, std::span<const int32_t> local_index_e);

/// Adds the pairs' weight gradients to dweights_tk ([T, K]): the twin of PairsFor, same order.
void ScatterWeightGradients(const Routing& routing, std::span<const int32_t> local_index_e,
                            const at::Tensor& dweight_n, at::Tensor& dweights_tk);

/// Computes every expert in `shard`, which must hold all experts of every sparse layer.
class LocalExperts final : public ExpertProvider {
 public:
  /// `party` is the source under which requests are summed; `shard` outlives this.
  LocalExperts(ExpertShard& shard, int party = 0);
  absl::Status BeginForward(int64_t layer) override;
  absl::Status Dispatch(int64_t layer, int64_t micro_batch, const at::Tensor& h_td,
                        const Routing& routing) override;
  absl::StatusOr<at::Tensor> Combine(int64_t layer, int64_t micro_batch) override;
  absl::Status BeginBackward(int64_t layer) override;
  absl::Status DispatchGradient(int64_t layer, int64_t micro_batch,
                                const at::Tensor& dy_td) override;
  absl::StatusOr<ExpertInputGradients> CombineGradient(int64_t layer, int64_t micro_batch) override;
  absl::Status EndBackward(int64_t layer) override;
  absl::Status BeginPass(const PassPlan& plan) override;
  absl::Status FinishPass() override { return absl::OkStatus(); }
  void Reset() override;
  /// False: several parties share the shard; its owner resets it and finishes its layers.
  void SetOwnsShard(bool owns) { owns_shard_ = owns; }

 private:
  ExpertShard& shard_;
  const int party_;
  bool training_ = true;
  bool owns_shard_ = true;
  std::vector<int32_t> identity_;  // global id = local index
  std::map<std::pair<int64_t, int64_t>, Routing> routing_;
  std::map<int64_t, at::Tensor> outputs_;  // by micro-batch
  std::map<int64_t, ExpertInputGradients> gradients_;
};

}  // namespace pcmoe::model
