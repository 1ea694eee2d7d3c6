// pcmoe/train/model_export.h: a party's export: the whole model from the owners of its units, under
// this party's policy.
#pragma once

#include <functional>
#include <memory>

#include "pcmoe/border/egress_gate.h"
#include "pcmoe/exchange/session/session.h"
#include "pcmoe/train/export_writer.h"

namespace pcmoe::train {

/// Gives the whole model, from whoever owns it (exchange::ModelFetch).
struct ExportSource {
  std::function<void(uint64_t version)> begin;
  model::NextStage next;
};

/// One party's, with any exchange and any number of parties. One thread.
class ModelExport {
 public:
  /// `config`, `session` and `gate` outlive this; `gate` may be null when there is one party. An
  /// empty request.out: there is no export.
  ModelExport(const model::ModelConfig& config, exchange::Session& session,
              const border::EgressGate* gate, ExportSource source, ExportRequest request);

  /// Whether the folder can take an export; what would else make it fail at its end.
  absl::Status CheckTarget() const;
  /// PERMISSION_DENIED when this party's policy keeps its weights from somebody; Fetch asks again.
  absl::Status CheckPolicy() const;

  bool wanted() const { return !request_.out.empty(); }

  /// A pass of all parties: fetches and writes the weights of `step` committed steps. Can be called
  /// again, after a failure.
  absl::Status Fetch(int64_t step, uint32_t attempt);

  /// Proves what was written and gives it its name; without the others.
  absl::Status Finish();

  /// Whether `out` holds this federation's export of `step`.
  bool Done(int64_t step) const;

 private:
  const model::ModelConfig& config_;
  exchange::Session& session_;
  const border::EgressGate* gate_;
  const ExportSource source_;
  const ExportRequest request_;
  std::unique_ptr<ExportWriter> writer_;
  int64_t step_ = 0;  // fetched
};

}  // namespace pcmoe::train
