// pcmoe/exchange/shard/owned_experts.h: the owner's side of the exchange `rows`: answers requests,
// and knows when a layer's weight gradients are complete.
#pragma once

#include <map>
#include <vector>

#include "pcmoe/border/rows_codec.h"
#include "pcmoe/exchange/session/session.h"
#include "pcmoe/exchange/shard/expert_map.h"
#include "pcmoe/model/expert_shard.h"

namespace pcmoe::exchange {

/// Serves kExpertRows and kRowGradients of the other parties while the session waits, and gives the
/// home part of this party direct access to the shard. Not thread-safe; the session's thread.
class OwnedExperts {
 public:
  /// All outlive this. Registers itself with `session`.
  OwnedExperts(const model::ModelConfig& config, const ExpertMap& map, model::ExpertShard& shard,
               Session& session, int64_t max_rows);

  /// A pass starts: how many micro-batches every party will bring through every layer (this party's
  /// own included). Requests that came before are answered now.
  absl::Status BeginPass(std::vector<int64_t> micro_batches_p, bool training);

  /// This party's own requests of the layer are all through backward.
  void HomeDone(int64_t layer);

  /// Serves until every request of the pass was answered; in training the gradients are then
  /// complete.
  absl::Status FinishPass();

  /// Forgets a pass that was given up, and its requests.
  void Reset();

  model::ExpertShard& shard() { return shard_; }
  const ExpertMap& map() const { return map_; }
  border::RowLimits limits() const;

 private:
  struct Request {
    int64_t rows = 0, pairs = 0;
  };
  absl::Status OnRequest(wire::PartyIndex from, wire::Message message);
  absl::Status OnExpertRows(wire::PartyIndex from, wire::Message message);
  absl::Status OnRowGradients(wire::PartyIndex from, wire::Message message);
  absl::Status CheckPlace(wire::PartyIndex from, const wire::MessageHeader& header) const;
  bool OwesRequests(wire::PartyIndex party, int64_t layer) const;
  wire::PartyIndex FirstOwing() const;
  void FinishIfComplete(int64_t layer);

  const model::ModelConfig& config_;
  const ExpertMap& map_;
  model::ExpertShard& shard_;
  Session& session_;
  const int64_t max_rows_;
  bool open_pass_ = false;
  bool training_ = false;
  std::vector<int64_t> micro_batches_p_;
  std::vector<std::vector<int64_t>> answered_lp_;  // last answers of the pass: [layer][party]
  std::vector<bool> finished_l_;
  std::vector<std::pair<wire::PartyIndex, wire::Message>> waiting_;  // before BeginPass
  std::map<std::tuple<int64_t, wire::PartyIndex, int64_t>, Request> requests_;
};

}  // namespace pcmoe::exchange
