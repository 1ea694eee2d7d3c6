// pcmoe/cli/audit_final.cc: see audit_final.h.
#include "pcmoe/cli/audit_final.h"

#include "pcmoe/train/run_config.h"

namespace pcmoe::cli {

namespace fs = std::filesystem;

absl::StatusOr<ReleasedModel> ReadReleasedModel(
    const fs::path& run, const std::vector<std::string>& parties, const std::string& victim,
    const model::ModelConfig& model, const text::Tokenizer& tokenizer, int64_t sequence_length) {
  std::vector<fs::path> outputs = {run / victim / "out"};  // its backbone comes first
  for (const std::string& party : parties) {
    if (party != victim) outputs.push_back(run / party / "out");
  }
  const std::vector<fs::path> folders = audit::LastCheckpoints(outputs);
  if (folders.empty()) {
    return absl::NotFoundError("the parties have no checkpoint of one step in the run's folder");
  }
  ReleasedModel released;
  PCMOE_ASSIGN_OR_RETURN(released.model, audit::AssembleModel(model, folders));
  PCMOE_ASSIGN_OR_RETURN(const train::RunConfig config,
                         train::LoadRunConfig(run / victim / "party.toml", {}));
  for (const std::string& file : config.train) {
    PCMOE_ASSIGN_OR_RETURN(
        const std::vector<data::Sequence> sequences,
        data::LoadSequences({file}, tokenizer,
                            {.sequence_length = static_cast<int32_t>(sequence_length),
                             .eos_id = tokenizer.EosId().value_or(-1),
                             .last = data::LastSequence::kDrop},
                            config.text_column));
    released.its_text.insert(released.its_text.end(), sequences.begin(), sequences.end());
  }
  return released;
}

}  // namespace pcmoe::cli
