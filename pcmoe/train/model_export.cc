// pcmoe/train/model_export.cc: see model_export.h.
#include "pcmoe/train/model_export.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"
#include "pcmoe/base/file.h"
#include "pcmoe/base/log.h"

namespace pcmoe::train {

ModelExport::ModelExport(const model::ModelConfig& config, exchange::Session& session,
                         const border::EgressGate* gate, ExportSource source, ExportRequest request)
    : config_(config),
      session_(session),
      gate_(gate),
      source_(std::move(source)),
      request_(std::move(request)) {}

absl::Status ModelExport::CheckTarget() const {
  return wanted() ? CheckExportTarget(request_) : absl::OkStatus();
}

absl::Status ModelExport::CheckPolicy() const {
  if (request_.out.empty()) return absl::OkStatus();
  for (int peer = 0; gate_ != nullptr && peer < session_.parties(); ++peer) {
    if (peer == session_.self()) continue;
    PCMOE_RETURN_IF_ERROR(
        WithContext(gate_->CheckPolicy(peer, wire::MessageKind::kUnitWeights), "no export"));
  }
  return absl::OkStatus();
}

absl::Status ModelExport::Fetch(int64_t step, uint32_t attempt) {
  // The step before `step` is the last that was run; this comes after its evaluation.
  PCMOE_RETURN_IF_ERROR(session_.EnterStep(static_cast<uint64_t>(step - 1), attempt,
                                           exchange::Session::Phase::kExport));
  // All are here, so that an error is heard by all.
  PCMOE_RETURN_IF_ERROR(session_.Broadcast(wire::MessageKind::kBegin, {}));
  for (int peer = 0; peer < session_.parties(); ++peer) {
    if (peer == session_.self()) continue;
    PCMOE_RETURN_IF_ERROR(session_.Await(wire::MessageKind::kBegin, peer, 0, 0).status());
  }
  PCMOE_RETURN_IF_ERROR(CheckPolicy());  // before a byte of it leaves
  source_.begin(static_cast<uint64_t>(step));
  step_ = step;
  writer_ = std::make_unique<ExportWriter>(config_, request_);
  return writer_->Write(source_.next, step);
}

absl::Status ModelExport::Finish() {
  if (writer_ == nullptr) return absl::InternalError("an export was to end that never began");
  PCMOE_ASSIGN_OR_RETURN(const ExportSummary summary, writer_->Finish());
  writer_.reset();
  base::LogInfo(absl::StrFormat(
      "exported step %d to %s: %d tensors, %.1f MB in %d files; opened again, logits of random "
      "tokens differ by %.1g",
      step_, request_.out.string(), summary.tensors, static_cast<double>(summary.bytes) / 1e6,
      summary.shards, summary.largest_difference));
  return absl::OkStatus();
}

bool ModelExport::Done(int64_t step) const {
  const auto text = base::ReadFile(request_.out / kExportNote, 1 << 20);
  if (!text.ok()) return false;
  const auto note = nlohmann::json::parse(*text, nullptr, /*allow_exceptions=*/false);
  return note.is_object() && note.value("global_step", nlohmann::json()) == step &&
         note.value("federation", nlohmann::json()) == request_.federation;
}

}  // namespace pcmoe::train
