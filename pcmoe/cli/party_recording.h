// pcmoe/cli/party_recording.h: what a party keeps for `pcmoe audit`, when its operator asked by
// name.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "pcmoe/audit/truth.h"
#include "pcmoe/exchange/rows/rows_provider.h"
#include "pcmoe/train/trainer.h"
#include "pcmoe/transport/channel.h"

namespace pcmoe::cli {

/// The keys [border] record_received and record_truth of one run. One thread.
class PartyRecording {
 public:
  /// INVALID_ARGUMENT when a key holds another name than `name`, this party's own.
  static absl::StatusOr<PartyRecording> Create(const train::RunConfig& config,
                                               const std::string& name);

  /// `channel`, recorded when that was asked for.
  absl::StatusOr<std::unique_ptr<transport::Channel>> Wrap(
      std::unique_ptr<transport::Channel> channel) const;

  /// Keeps which token every row of a message is; nothing unless the truth was asked for. `this`
  /// and `session` outlive `experts`' use.
  void Observe(const exchange::Session& session, exchange::RowsProvider& experts);

  /// For TrainerParts; null unless the truth was asked for.
  std::function<void(int64_t, const std::vector<model::MicroBatch>&)> BatchesObserver();

 private:
  std::string received_folder_;  // empty: not asked for
  std::optional<audit::TruthWriter> truth_;
};

}  // namespace pcmoe::cli
