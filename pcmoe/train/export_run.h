// pcmoe/train/export_run.h: `pcmoe export`: parties of a run that is over meet once more, agree on
// the newest step that all have, or on a step that all name, and export it.
#pragma once

#include <functional>
#include <optional>

#include "absl/time/time.h"
#include "pcmoe/exchange/session/session.h"
#include "pcmoe/train/checkpoints.h"
#include "pcmoe/train/model_export.h"

namespace pcmoe::train {

/// What an export works with; all outlive it.
struct ExportRunParts {
  exchange::Session& session;
  PartyModel& model;
  const Checkpoints& checkpoints;
  absl::Duration rendezvous_timeout;
  bool wait_for_peers = true;  ///< [run] on_peer_loss: meet again when one is lost.
  std::function<bool()> interrupted;
  ModelExport& model_export;    ///< Of `model`.
  std::optional<int64_t> step;  ///< Of the checkpoint; without one, the newest that all have.
};

/// Checkpoints stay as they are. FAILED_PRECONDITION when there is no (such) step that all parties
/// have on disk. Closes the session: what was fetched is proved without the others.
absl::Status RunExport(const ExportRunParts& parts);

}  // namespace pcmoe::train
