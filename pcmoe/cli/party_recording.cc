// pcmoe/cli/party_recording.cc: see party_recording.h.
#include "pcmoe/cli/party_recording.h"

#include <filesystem>

#include "pcmoe/base/log.h"
#include "pcmoe/transport/recording_channel.h"

namespace pcmoe::cli {
namespace {

namespace fs = std::filesystem;

absl::Status CheckName(const char* key, const std::string& asked, const std::string& name) {
  if (asked.empty() || asked == name) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("[border] ", key, " = \"", asked, "\" is not the name of this party; write \"",
                   name, "\" if its recording is meant, or remove the key"));
}

}  // namespace

absl::StatusOr<PartyRecording> PartyRecording::Create(const train::RunConfig& config,
                                                      const std::string& name) {
  PCMOE_RETURN_IF_ERROR(CheckName("record_received", config.record_received, name));
  PCMOE_RETURN_IF_ERROR(CheckName("record_truth", config.record_truth, name));
  PartyRecording recording;
  const fs::path out = config.output_dir;
  if (!config.record_received.empty()) recording.received_folder_ = (out / "received").string();
  if (!config.record_truth.empty()) {
    PCMOE_ASSIGN_OR_RETURN(recording.truth_, audit::TruthWriter::Create(out / "truth"));
    base::LogWarning(absl::StrCat("[border] record_truth: this party's tokens are kept in ",
                                  (out / "truth").string(), "; remove them after the audit"));
  }
  return recording;
}

absl::StatusOr<std::unique_ptr<transport::Channel>> PartyRecording::Wrap(
    std::unique_ptr<transport::Channel> channel) const {
  if (received_folder_.empty()) return channel;
  return transport::RecordReceived(std::move(channel), received_folder_);
}

void PartyRecording::Observe(const exchange::Session& session, exchange::RowsProvider& experts) {
  if (!truth_) return;
  experts.SetRowsObserver(
      [this, &session](int64_t layer, int64_t micro_batch, int owner, const at::Tensor& token_r) {
        truth_->AddRows(static_cast<int64_t>(session.step()), layer, micro_batch, owner,
                        {token_r.const_data_ptr<int64_t>(), static_cast<size_t>(token_r.numel())});
      });
}

std::function<void(int64_t, const std::vector<model::MicroBatch>&)>
PartyRecording::BatchesObserver() {
  if (!truth_) return nullptr;
  return [this](int64_t step, const std::vector<model::MicroBatch>& batches) {
    for (size_t m = 0; m < batches.size(); ++m) {
      const at::Tensor& tokens = batches[m].tokens_bs;
      const at::Tensor& labels = batches[m].labels_bs;
      const auto ints = [](const at::Tensor& values) {
        const int64_t* data = values.const_data_ptr<int64_t>();
        return std::vector<int32_t>(data, data + values.numel());
      };
      truth_->AddBatch({.step = step,
                        .micro_batch = static_cast<int64_t>(m),
                        .sequences = tokens.size(0),
                        .tokens = ints(tokens),
                        .labels = ints(labels)});
    }
    if (const absl::Status status = truth_->Finish(); !status.ok()) {
      base::LogWarning(std::string(status.message()));
    }
  };
}

}  // namespace pcmoe::cli
