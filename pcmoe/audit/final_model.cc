// pcmoe/audit/final_model.cc: see final_model.h.
#include "pcmoe/audit/final_model.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <set>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "pcmoe/audit/membership.h"
#include "pcmoe/tensor/safetensors.h"

namespace pcmoe::audit {
namespace {

namespace fs = std::filesystem;

constexpr size_t kFewest = 8;  // of each side
constexpr size_t kPrompted = 96;
constexpr int64_t kPrompt = 32, kTokens = 32;

std::set<int64_t> StepsIn(const fs::path& output) {
  std::set<int64_t> steps;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(output, error)) {
    const std::string name = entry.path().filename().string();
    int64_t step = 0;
    if (name.starts_with("checkpoint-") && absl::SimpleAtoi(name.substr(11), &step)) {
      steps.insert(step);
    }
  }
  return steps;
}

absl::StatusOr<std::vector<tensor::SafetensorsReader>> OpenAll(std::span<const fs::path> folders) {
  std::vector<tensor::SafetensorsReader> readers;
  for (const fs::path& folder : folders) {
    std::set<fs::path> files;  // in a fixed order
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(folder, error)) {
      if (entry.path().filename().string().starts_with("model") &&
          entry.path().extension() == ".safetensors") {
        files.insert(entry.path());
      }
    }
    for (const fs::path& file : files) {
      PCMOE_ASSIGN_OR_RETURN(tensor::SafetensorsReader reader,
                             tensor::SafetensorsReader::Open(file));
      readers.push_back(std::move(reader));
    }
  }
  return readers;
}

// Sequences that a party trained on, each once; and those of its text that it did not.
struct Sides {
  std::vector<data::Sequence> members, others;
};

Sides SidesOf(const FinalModel& final, const Truth& truth, size_t candidates, uint64_t seed) {
  Sides sides;
  std::set<std::vector<int32_t>> used;
  size_t length = 0;
  for (const auto& [key, batch] : truth.batches()) {
    length = static_cast<size_t>(batch.length());
    for (size_t first = 0; first < batch.tokens.size(); first += length) {
      data::Sequence one{.document_starts = {0}};
      const auto from = static_cast<std::ptrdiff_t>(first);
      const auto to = static_cast<std::ptrdiff_t>(first + length);
      one.tokens.assign(batch.tokens.begin() + from, batch.tokens.begin() + to);
      one.labels.assign(batch.labels.begin() + from, batch.labels.begin() + to);
      if (used.insert(one.tokens).second) sides.members.push_back(std::move(one));
    }
  }
  for (const data::Sequence& one : final.its_text) {
    const bool whole =
        std::all_of(one.labels.begin(), one.labels.end(), [](int32_t label) { return label >= 0; });
    if (whole && one.tokens.size() == length && !used.contains(one.tokens)) {
      sides.others.push_back(one);
    }
  }
  std::mt19937_64 random(seed);
  for (auto* side : {&sides.members, &sides.others}) {
    std::shuffle(side->begin(), side->end(), random);
    side->resize(std::min(side->size(), candidates));
  }
  return sides;
}

double ShareWhole(const std::vector<int64_t>& right, int64_t tokens) {
  return static_cast<double>(std::count(right.begin(), right.end(), tokens)) /
         static_cast<double>(right.size());
}

Estimate ShareOf(const std::vector<int64_t>& right, int64_t tokens) {
  std::vector<DocumentHits> documents;
  for (const int64_t one : right) documents.push_back({one, tokens});
  return HitRate(documents);
}

double Mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

absl::StatusOr<Finding> Membership(BaseModel& model, BaseModel& base, const Sides& sides) {
  PCMOE_ASSIGN_OR_RETURN(const auto in, ScoreByLoss(model, base, sides.members));
  PCMOE_ASSIGN_OR_RETURN(const auto out, ScoreByLoss(model, base, sides.others));
  PCMOE_ASSIGN_OR_RETURN(std::vector<double> base_in, base.Losses(sides.members));
  PCMOE_ASSIGN_OR_RETURN(std::vector<double> base_out, base.Losses(sides.others));
  for (auto* side : {&base_in, &base_out}) {
    for (double& loss : *side) loss = -loss;
  }
  return Finding{
      .id = "final_membership",
      .title = "final model: was this sequence trained on? by loss",
      .target = Target::kMemory,
      .metric = "AUC",
      .estimate = AucEstimate(in, out),
      .baselines = {{"chance", 0.5}, {"public base's loss alone", Auc(base_in, base_out)}},
      .more = {{"TPR at 1 % FPR", TprAtFpr(in, out, 0.01)},
               {"nats a token learned, members", Mean(in)},
               {"others", Mean(out)},
               {"sequences a side", static_cast<double>(std::min(in.size(), out.size()))}},
      .note =
          "all experts and one victim's backbone, from the run's checkpoints; others are the "
          "same victim's text that it did not train on"};
}

absl::StatusOr<Finding> Extraction(BaseModel& model, BaseModel& base, const Sides& sides) {
  const auto length = static_cast<int64_t>(sides.members[0].tokens.size());
  const int64_t prompt = std::min(kPrompt, length / 2);
  const int64_t tokens = std::min(kTokens, length - prompt);
  const auto members = std::span(sides.members).first(std::min(kPrompted, sides.members.size()));
  const auto others = std::span(sides.others).first(std::min(kPrompted, sides.others.size()));
  PCMOE_ASSIGN_OR_RETURN(const auto of_final, RightInARow(model, members, prompt, tokens));
  PCMOE_ASSIGN_OR_RETURN(const auto of_base, RightInARow(base, members, prompt, tokens));
  PCMOE_ASSIGN_OR_RETURN(const auto of_others, RightInARow(model, others, prompt, tokens));
  return Finding{
      .id = "final_extraction",
      .title = "final model: text it continues word for word",
      .target = Target::kMemory,
      .metric = absl::StrFormat("of %d tokens, right in a row", tokens),
      .estimate = ShareOf(of_final, tokens),
      .baselines = {{"public base, same prompts", ShareOf(of_base, tokens).value},
                    {"text not trained on", ShareOf(of_others, tokens).value}},
      .more = {{"whole continuations", ShareWhole(of_final, tokens)},
               {"the base's", ShareWhole(of_base, tokens)},
               {"of text not trained on", ShareWhole(of_others, tokens)},
               {"tokens of a prompt", static_cast<double>(prompt)}},
      .note = "prompted with the first tokens of sequences that were trained on; likeliest token"};
}

}  // namespace

std::vector<fs::path> LastCheckpoints(std::span<const fs::path> outputs) {
  std::set<int64_t> common = outputs.empty() ? std::set<int64_t>{} : StepsIn(outputs[0]);
  for (const fs::path& output : outputs) {
    const std::set<int64_t> here = StepsIn(output);
    std::erase_if(common, [&here](int64_t step) { return !here.contains(step); });
  }
  std::vector<fs::path> folders;
  if (common.empty()) return folders;
  for (const fs::path& output : outputs) {
    folders.push_back(output / absl::StrCat("checkpoint-", *common.rbegin()));
  }
  return folders;
}

absl::StatusOr<std::unique_ptr<BaseModel>> AssembleModel(const model::ModelConfig& config,
                                                         std::span<const fs::path> folders) {
  PCMOE_ASSIGN_OR_RETURN(const auto readers, OpenAll(folders));
  model::BackboneParameters backbone = model::EmptyBackbone(config);
  model::ExpertParameters experts = model::EmptyExperts(config, model::AllExperts(config));
  std::vector<model::NamedTensor> wanted = model::NamedBackbone(config, backbone);
  for (model::NamedTensor& one : model::NamedExperts(config, experts)) {
    wanted.push_back(std::move(one));
  }
  for (const model::NamedTensor& one : wanted) {
    const auto found =
        std::find_if(readers.begin(), readers.end(),
                     [&one](const tensor::SafetensorsReader& r) { return r.Has(one.name); });
    if (found == readers.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("no party's checkpoint has the tensor ", one.name));
    }
    PCMOE_RETURN_IF_ERROR(found->Read(one.name, one.tensor));
  }
  return std::make_unique<BaseModel>(config, std::move(backbone), std::move(experts));
}

absl::StatusOr<std::vector<int64_t>> RightInARow(BaseModel& model,
                                                 std::span<const data::Sequence> documents,
                                                 int64_t prompt, int64_t tokens) {
  PCMOE_ASSIGN_OR_RETURN(const at::Tensor guess, model.Continue(documents, prompt, tokens));
  const at::Tensor rows = guess.contiguous();
  const int64_t* guessed = rows.const_data_ptr<int64_t>();
  std::vector<int64_t> right;
  for (const data::Sequence& document : documents) {
    int64_t count = 0;
    while (count < tokens &&
           guessed[count] == document.tokens[static_cast<size_t>(prompt + count)]) {
      ++count;
    }
    right.push_back(count);
    guessed += tokens;
  }
  return right;
}

absl::StatusOr<std::vector<Finding>> AttackFinalModel(const FinalModel& final, const Truth& truth,
                                                      BaseModel& base, size_t candidates,
                                                      uint64_t seed,
                                                      std::vector<std::string>& warnings) {
  const Sides sides = SidesOf(final, truth, candidates, seed);
  if (sides.members.size() < kFewest || sides.others.size() < kFewest) {
    warnings.push_back(absl::StrCat("the final model was not attacked: the victim trained on ",
                                    sides.members.size(), " of its sequences and has ",
                                    sides.others.size(), " that it did not train on; ", kFewest,
                                    " of each are needed"));
    return std::vector<Finding>{};
  }
  PCMOE_ASSIGN_OR_RETURN(Finding membership, Membership(*final.model, base, sides));
  PCMOE_ASSIGN_OR_RETURN(Finding extraction, Extraction(*final.model, base, sides));
  return std::vector<Finding>{std::move(membership), std::move(extraction)};
}

}  // namespace pcmoe::audit
