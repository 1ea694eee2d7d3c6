// pcmoe/cli/audit_final.h: the final model of a recorded run, for `pcmoe audit`.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "pcmoe/audit/final_model.h"

namespace pcmoe::cli {

/// What the audit takes of a run's end. Plain data.
struct ReleasedModel {
  std::unique_ptr<audit::BaseModel> model;
  std::vector<data::Sequence> its_text;
};

/// All experts and one victim's backbone, from the newest checkpoints that the parties of the run
/// in `run` have in common; and that victim's own text, as its party.toml packs it. The sentence of
/// the error says what is missing.
absl::StatusOr<ReleasedModel> ReadReleasedModel(const std::filesystem::path& run,
                                                const std::vector<std::string>& parties,
                                                const std::string& victim,
                                                const model::ModelConfig& model,
                                                const text::Tokenizer& tokenizer,
                                                int64_t sequence_length);

}  // namespace pcmoe::cli
