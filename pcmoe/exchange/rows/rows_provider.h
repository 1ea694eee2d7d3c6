// pcmoe/exchange/rows/rows_provider.h: experts that may be elsewhere: rows of tokens travel to
// their owners, one message a peer, layer and micro-batch (DESIGN 3.2). Shape legend: T tokens, D
// hidden width, K experts per token, R rows sent to one owner.
#pragma once

#include <functional>
#include <map>
#include <utility>
#include <vector>

#include "pcmoe/base/random.h"
#include "pcmoe/exchange/session/session.h"
#include "pcmoe/exchange/shard/owned_experts.h"
#include "pcmoe/model/expert_provider.h"
#include "pcmoe/model/local_experts.h"

namespace pcmoe::exchange {

/// The home side of `rows`. Rows are shuffled a message with a stream keyed by a secret of this
/// party (so a step that is run again sends the same bytes), and padded to a public ladder of
/// counts. Sums run in the order own experts, then owners by index: results do not depend on
/// arrival.
class RowsProvider final : public model::ExpertProvider {
 public:
  /// All outlive this. `shuffle_key` is this party's own secret.
  RowsProvider(OwnedExperts& owned, Session& session, const base::KeyedStream::Key& shuffle_key);

  absl::Status BeginForward(int64_t layer) override;
  absl::Status Dispatch(int64_t layer, int64_t micro_batch, const at::Tensor& h_td,
                        const model::Routing& routing) override;
  absl::StatusOr<at::Tensor> Combine(int64_t layer, int64_t micro_batch) override;
  absl::Status BeginBackward(int64_t layer) override;
  absl::Status DispatchGradient(int64_t layer, int64_t micro_batch,
                                const at::Tensor& dy_td) override;
  absl::StatusOr<model::ExpertInputGradients> CombineGradient(int64_t layer,
                                                              int64_t micro_batch) override;
  absl::Status EndBackward(int64_t layer) override;
  absl::Status BeginPass(const model::PassPlan& plan) override;
  absl::Status FinishPass() override { return owned_.FinishPass(); }
  void Reset() override;
  Figures TakeFigures() override { return {.rows_sent = std::exchange(rows_sent_, 0)}; }

  /// Told of every message of rows in training before it leaves: the layer, the micro-batch, the
  /// owner, and the token (index into the micro-batch, int64 [R]) of every row in the order of the
  /// message, without padding. Null by default; `pcmoe audit` scores its attacks against it.
  using RowsObserver =
      std::function<void(int64_t layer, int64_t micro_batch, int owner, const at::Tensor& token_r)>;
  void SetRowsObserver(RowsObserver observer) { observer_ = std::move(observer); }

 private:
  // What went to one owner: which tokens, in which order, and where their pairs are in [T, K].
  struct Trip {
    at::Tensor token_r;           // int64 [R], without padding
    std::vector<int64_t> slot_n;  // index into [T*K] of each pair sent
    int64_t padded_rows = 0;
  };
  struct Batch {
    at::Tensor h_td;
    model::Routing routing;
    std::vector<Trip> trips;  // by owner; empty for self
    at::Tensor local;         // own experts' part: y or dx
    at::Tensor local_dweight_n;
  };
  using Key = std::pair<int64_t, int64_t>;  // layer, micro-batch

  Trip PlanTrip(int owner, int64_t layer, int64_t micro_batch, const model::Routing& routing,
                std::vector<border::WirePair>& pairs) const;
  absl::Status ComputeLocal(Key key, Batch& batch);

  OwnedExperts& owned_;
  Session& session_;
  const base::KeyedStream::Key shuffle_key_;
  bool training_ = true;
  std::map<Key, Batch> batches_;
  int64_t rows_sent_ = 0;
  RowsObserver observer_;
};

}  // namespace pcmoe::exchange
