// pcmoe/train/export_run.cc: see export_run.h.
#include "pcmoe/train/export_run.h"

#include <vector>

#include "absl/strings/str_join.h"
#include "pcmoe/base/log.h"
#include "pcmoe/train/farewell.h"
#include "pcmoe/train/rendezvous.h"

namespace pcmoe::train {
namespace {

constexpr int kMaxFailures = 5;

absl::StatusOr<Meeting> MeetForExport(const ExportRunParts& parts) {
  Standing standing{.checkpoint_steps = parts.checkpoints.Steps(), .intent = Intent::kExport};
  if (parts.step)
    std::erase_if(standing.checkpoint_steps, [&](int64_t s) { return s != *parts.step; });
  Meeting meeting;
  if (parts.session.parties() > 1) {
    PCMOE_ASSIGN_OR_RETURN(
        meeting, Meet(parts.session, standing, parts.rendezvous_timeout, parts.interrupted,
                      [](const std::string& line) { base::LogInfo(line); }));
  } else if (!standing.checkpoint_steps.empty()) {
    meeting.step = standing.checkpoint_steps.back();
  }
  if (meeting.step > 0) return meeting;
  if (parts.step) {
    const std::vector<int64_t> steps = parts.checkpoints.Steps();
    return absl::FailedPreconditionError(absl::StrCat(
        "not every party has a checkpoint of step ", *parts.step, " and exports it; this one has ",
        steps.empty() ? "none" : absl::StrCat("steps ", absl::StrJoin(steps, ", "))));
  }
  return absl::FailedPreconditionError(
      parts.session.parties() > 1
          ? "there is no checkpoint that all parties have, so there is nothing to export; train "
            "first"
          : "output_dir holds no checkpoint, so there is nothing to export; train first");
}

// From the meeting to the farewell. `fetched` says whether this party has all that it came for.
absl::Status ExportOnce(const ExportRunParts& parts, Farewell& farewell, bool& fetched) {
  const absl::StatusOr<Meeting> met = MeetForExport(parts);
  if (absl::IsFailedPrecondition(met.status())) {  // nobody leaves before all have found it out
    const absl::Status left = farewell.Say(0, parts.session.attempt());
    return exchange::FailureIn(left) ? left : met.status();
  }
  PCMOE_RETURN_IF_ERROR(met.status());
  fetched = false;
  PCMOE_RETURN_IF_ERROR(parts.checkpoints.LoadWeights(met->step, parts.model));
  PCMOE_RETURN_IF_ERROR(parts.model_export.Fetch(met->step, met->attempt));
  fetched = true;
  return farewell.Say(met->step, met->attempt);
}

// Whether another meeting may heal it.
bool IsHealable(const absl::Status& status, wire::PartyIndex self) {
  const auto failure = exchange::FailureIn(status);
  return failure && failure->culprit != self &&
         failure->reason != exchange::AbortReason::kBadMessage &&
         failure->reason != exchange::AbortReason::kNotFinite;
}

}  // namespace

absl::Status RunExport(const ExportRunParts& parts) {
  const wire::PartyIndex self = parts.session.self();
  Farewell farewell(parts.session);
  bool fetched = false;
  absl::Status status;
  for (int failures = 0; failures < kMaxFailures; ++failures) {
    status = ExportOnce(parts, farewell, fetched);
    if (status.ok()) break;
    parts.session.TellAbort(exchange::FailureIn(status).value_or(
        exchange::Failure{self, exchange::AbortReason::kLocalError}));
    if (!parts.wait_for_peers || !IsHealable(status, self)) break;
    base::LogWarning(absl::StrCat(std::string(status.message()), "; meeting again"));
  }
  parts.session.Close();
  if (!fetched) return status;
  // Others may have needed it still; this party has what it came for.
  if (!status.ok()) base::LogWarning(std::string(status.message()));
  return parts.model_export.Finish();
}

}  // namespace pcmoe::train
