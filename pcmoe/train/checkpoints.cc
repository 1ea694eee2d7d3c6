// pcmoe/train/checkpoints.cc: see checkpoints.h.
#include "pcmoe/train/checkpoints.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/numbers.h"
#include "pcmoe/base/file.h"

namespace pcmoe::train {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr char kPrefix[] = "checkpoint-";
constexpr char kUnfinished[] = ".unfinished-";

constexpr char kTrainerState[] = "trainer_state.json";
constexpr char kPartyState[] = "party_state.json";
constexpr uint64_t kMaxStateBytes = uint64_t{1} << 24;

// The keys of transformers' TrainerState, none else: it refuses others.
Json TrainerStateJson(const TrainerState& state) {
  Json history = Json::array();
  for (const LogEntry& logged : state.log_history) {
    Json entry = logged.values;
    entry["step"] = logged.step;
    history.push_back(std::move(entry));
  }
  return {{"epoch", state.epoch},
          {"global_step", state.global_step},
          {"log_history", std::move(history)},
          {"max_steps", state.max_steps}};
}

Json PartyStateJson(const TrainerState& state, const std::string& federation) {
  Json data = Json::array();
  for (const data::Cursor& cursor : state.cursors) data.push_back(Json::parse(cursor.ToJson()));
  return {{"global_step", state.global_step}, {"federation", federation}, {"data", data}};
}

// A member that is not a number was not finite when it was written.
std::vector<LogEntry> LogHistoryFrom(const Json& history) {
  std::vector<LogEntry> entries;
  for (const Json& entry : history) {
    if (!entry.is_object() || !entry.contains("step") || !entry["step"].is_number_integer()) {
      continue;
    }
    entries.push_back({.step = entry["step"].get<int64_t>()});
    for (const auto& [key, value] : entry.items()) {
      if (key != "step" && value.is_number()) entries.back().values[key] = value.get<double>();
    }
  }
  return entries;
}

absl::StatusOr<Json> ReadJson(const fs::path& path) {
  PCMOE_ASSIGN_OR_RETURN(const std::string text, base::ReadFile(path, kMaxStateBytes));
  return Json::parse(text, nullptr, /*allow_exceptions=*/false);
}

absl::Status Damaged(const fs::path& path) {
  return absl::DataLossError(
      absl::StrCat(path.string(), ": is damaged; remove this checkpoint's folder"));
}

bool IsOfStep(const Json& json, int64_t step) {
  return json.is_object() && json.contains("global_step") &&
         json["global_step"].is_number_integer() && json["global_step"].get<int64_t>() == step;
}

absl::Status Remove(const fs::path& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (!error) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(path.string(), ": cannot remove: ", error.message()));
}

}  // namespace

Checkpoints::Checkpoints(fs::path folder, std::string federation, int64_t total_limit)
    : folder_(std::move(folder)), federation_(std::move(federation)), total_limit_(total_limit) {}

fs::path Checkpoints::FolderOf(int64_t step) const { return folder_ / absl::StrCat(kPrefix, step); }

absl::Status Checkpoints::Open() {
  PCMOE_RETURN_IF_ERROR(base::CreateFolder(folder_, 0700));
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder_, error)) {
    if (entry.path().filename().string().starts_with(kUnfinished)) {
      PCMOE_RETURN_IF_ERROR(Remove(entry.path()));
    }
  }
  for (const int64_t step : Steps()) {
    PCMOE_ASSIGN_OR_RETURN(const TrainerState state, ReadState(step));
    PCMOE_RETURN_IF_ERROR(CheckOwner(state));
  }
  return absl::OkStatus();
}

absl::Status Checkpoints::CheckOwner(const TrainerState& state) const {
  if (state.federation == federation_) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(FolderOf(state.global_step).string(),
                   " belongs to another federation or run; choose another output_dir"));
}

std::vector<int64_t> Checkpoints::Steps() const {
  std::vector<int64_t> steps;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder_, error)) {
    const std::string name = entry.path().filename().string();
    int64_t step = 0;
    if (!name.starts_with(kPrefix)) continue;
    if (!absl::SimpleAtoi(name.substr(sizeof(kPrefix) - 1), &step)) continue;
    steps.push_back(step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

absl::Status Checkpoints::Save(const TrainerState& state, PartyModel& model,
                               model::ExpertProvider& experts) {
  const fs::path temporary = folder_ / absl::StrCat(kUnfinished, state.global_step);
  PCMOE_RETURN_IF_ERROR(Remove(temporary));
  PCMOE_RETURN_IF_ERROR(base::CreateFolder(temporary, 0700));
  PCMOE_RETURN_IF_ERROR(model.Save(temporary));
  PCMOE_RETURN_IF_ERROR(experts.SaveState(temporary));
  const std::pair<const char*, Json> files[] = {{kTrainerState, TrainerStateJson(state)},
                                                {kPartyState, PartyStateJson(state, federation_)}};
  for (const auto& [name, json] : files) {
    PCMOE_RETURN_IF_ERROR(base::WriteFileAtomically(temporary / name, json.dump(2) + "\n"));
  }
  PCMOE_RETURN_IF_ERROR(Retire(state.global_step));
  return base::PublishFolder(temporary, FolderOf(state.global_step));
}

absl::StatusOr<TrainerState> Checkpoints::ReadState(int64_t step) const {
  const fs::path path = FolderOf(step) / kPartyState;
  PCMOE_ASSIGN_OR_RETURN(const Json json, ReadJson(path));
  if (!IsOfStep(json, step) || !json.contains("data") || !json["data"].is_array() ||
      !json.contains("federation") || !json["federation"].is_string()) {
    return Damaged(path);
  }
  TrainerState state{.global_step = step, .federation = json["federation"].get<std::string>()};
  for (const Json& cursor : json["data"]) {
    PCMOE_ASSIGN_OR_RETURN(data::Cursor parsed, data::Cursor::FromJson(cursor.dump()));
    state.cursors.push_back(parsed);
  }
  PCMOE_ASSIGN_OR_RETURN(const Json logged, ReadJson(FolderOf(step) / kTrainerState));
  if (!IsOfStep(logged, step) || !logged.contains("log_history")) {
    return Damaged(FolderOf(step) / kTrainerState);
  }
  state.log_history = LogHistoryFrom(logged["log_history"]);
  return state;
}

absl::StatusOr<TrainerState> Checkpoints::Load(int64_t step, PartyModel& model,
                                               model::ExpertProvider& experts) const {
  PCMOE_ASSIGN_OR_RETURN(TrainerState state, ReadState(step));
  PCMOE_RETURN_IF_ERROR(model.Load(FolderOf(step)));
  PCMOE_RETURN_IF_ERROR(experts.LoadState(FolderOf(step), step));
  return state;
}

absl::Status Checkpoints::LoadWeights(int64_t step, PartyModel& model) const {
  PCMOE_ASSIGN_OR_RETURN(const TrainerState state, ReadState(step));
  PCMOE_RETURN_IF_ERROR(CheckOwner(state));
  return model.LoadWeights(FolderOf(step));
}

// A folder is removed file by file: under its own name, a crash would leave half a checkpoint.
absl::Status Checkpoints::Retire(int64_t step) {
  if (!fs::exists(FolderOf(step))) return absl::OkStatus();
  const fs::path aside = folder_ / absl::StrCat(kUnfinished, "removed-", step);
  PCMOE_RETURN_IF_ERROR(Remove(aside));
  std::error_code error;
  fs::rename(FolderOf(step), aside, error);
  if (error) {
    return absl::DataLossError(
        absl::StrCat(FolderOf(step).string(), ": cannot be set aside: ", error.message()));
  }
  return Remove(aside);
}

absl::Status Checkpoints::RemoveAfter(int64_t step) {
  for (const int64_t held : Steps()) {
    if (held > step) PCMOE_RETURN_IF_ERROR(Retire(held));
  }
  return absl::OkStatus();
}

absl::Status Checkpoints::Prune(int64_t common_step, int64_t best_step) {
  std::vector<int64_t> steps = Steps();
  std::erase(steps, best_step);
  for (size_t i = 0; i + static_cast<size_t>(total_limit_) < steps.size(); ++i) {
    if (steps[i] < common_step) PCMOE_RETURN_IF_ERROR(Retire(steps[i]));
  }
  return absl::OkStatus();
}

}  // namespace pcmoe::train
