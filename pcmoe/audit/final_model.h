// pcmoe/audit/final_model.h: the model that a run ends with, and what it remembers of the text it
// was trained on. The released model is taken to be all experts with one victim's backbone, from
// the checkpoints that the parties left in the run's folder.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "pcmoe/audit/base_model.h"
#include "pcmoe/audit/private_tokens.h"
#include "pcmoe/audit/report.h"

namespace pcmoe::audit {

/// The folders checkpoint-<step> of the newest step that all output folders have one of, in their
/// order; empty when there is none.
std::vector<std::filesystem::path> LastCheckpoints(std::span<const std::filesystem::path> outputs);

/// A whole model: every tensor from the first of the folders that has it. The first folder is the
/// party's whose backbone it is. INVALID_ARGUMENT names a tensor that none has.
absl::StatusOr<std::unique_ptr<BaseModel>> AssembleModel(
    const model::ModelConfig& config, std::span<const std::filesystem::path> folders);

/// Tokens of each document that the model gets right, one after another from the first, when it
/// continues the document's first `prompt` tokens for `tokens` more by the likeliest token.
absl::StatusOr<std::vector<int64_t>> RightInARow(BaseModel& model,
                                                 std::span<const data::Sequence> documents,
                                                 int64_t prompt, int64_t tokens);

/// The released model, and what it is held against.
struct FinalModel {
  BaseModel* model = nullptr;
  int victim = 0;                            ///< Whose backbone it has.
  std::span<const data::Sequence> its_text;  ///< All the victim's text, packed as it packs.
};

/// Membership by loss against the public base, and extraction of memorised text: sequences that the
/// victim trained on against sequences of its text that it did not. A sentence in `warnings` when
/// there are too few of either.
absl::StatusOr<std::vector<Finding>> AttackFinalModel(const FinalModel& final, const Truth& truth,
                                                      BaseModel& base, size_t candidates,
                                                      uint64_t seed,
                                                      std::vector<std::string>& warnings);

}  // namespace pcmoe::audit
