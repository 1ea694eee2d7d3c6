// pcmoe/train/export_run.cc: see export_run.h.
#include "pcmoe/train/export_run.h"

#include "pcmoe/base/log.h"
#include "pcmoe/train/farewell.h"
#include "pcmoe/train/rendezvous.h"

namespace pcmoe::train {
namespace {

absl::StatusOr<Meeting> MeetForExport(const ExportRunParts& parts) {
  const Standing standing{.checkpoint_steps = parts.checkpoints.Steps(), .intent = Intent::kExport};
  if (parts.session.parties() > 1) {
    return Meet(parts.session, standing, parts.rendezvous_timeout, parts.interrupted,
                [](const std::string& line) { base::LogInfo(line); });
  }
  return Meeting{.step = standing.checkpoint_steps.empty() ? 0 : standing.checkpoint_steps.back()};
}

}  // namespace

absl::Status RunExport(const ExportRunParts& parts) {
  Farewell farewell(parts.session);
  const auto met = MeetForExport(parts);
  if (absl::IsFailedPrecondition(met.status()) || (met.ok() && met->step == 0)) {
    // Nobody leaves before all have found it out.
    const absl::Status ignored = farewell.Say(0, parts.session.attempt());
  }
  PCMOE_RETURN_IF_ERROR(met.status());
  const Meeting meeting = *met;
  if (meeting.step == 0) {
    return absl::FailedPreconditionError(
        parts.session.parties() > 1
            ? "there is no checkpoint that all parties have, so there is nothing to export; train "
              "first"
            : "output_dir holds no checkpoint, so there is nothing to export; train first");
  }
  absl::Status status = parts.checkpoints.LoadWeights(meeting.step, parts.model);
  if (status.ok()) status = parts.model_export.Fetch(meeting.step, meeting.attempt);
  if (!status.ok()) {
    parts.session.TellAbort(exchange::FailureIn(status).value_or(
        exchange::Failure{parts.session.self(), exchange::AbortReason::kLocalError}));
    return status;
  }
  // Others may still need what was sent; but this party has what it came for.
  const absl::Status left = farewell.Say(meeting.step, meeting.attempt);
  if (!left.ok()) base::LogWarning(std::string(left.message()));
  parts.session.Close();
  return parts.model_export.Finish();
}

}  // namespace pcmoe::train
