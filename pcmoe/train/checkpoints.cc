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
    if (state.federation == federation_) continue;
    return absl::FailedPreconditionError(
        absl::StrCat(FolderOf(step).string(),
                     " belongs to another federation or run; choose another output_dir"));
  }
  return absl::OkStatus();
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

absl::Status Checkpoints::Save(const TrainerState& state, PartyModel& model) {
  const fs::path temporary = folder_ / absl::StrCat(kUnfinished, state.global_step);
  PCMOE_RETURN_IF_ERROR(Remove(temporary));
  PCMOE_RETURN_IF_ERROR(base::CreateFolder(temporary, 0700));
  PCMOE_RETURN_IF_ERROR(model.Save(temporary));
  Json json;
  json["global_step"] = state.global_step;
  json["federation"] = federation_;
  json["data"] = Json::array();
  for (const data::Cursor& cursor : state.cursors) {
    json["data"].push_back(Json::parse(cursor.ToJson()));
  }
  PCMOE_RETURN_IF_ERROR(
      base::WriteFileAtomically(temporary / "trainer_state.json", json.dump(2) + "\n"));
  PCMOE_RETURN_IF_ERROR(Retire(state.global_step));
  return base::PublishFolder(temporary, FolderOf(state.global_step));
}

absl::StatusOr<TrainerState> Checkpoints::ReadState(int64_t step) const {
  const fs::path path = FolderOf(step) / "trainer_state.json";
  PCMOE_ASSIGN_OR_RETURN(const std::string text, base::ReadFile(path, 1 << 20));
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  const bool readable = json.is_object() && json.contains("global_step") &&
                        json["global_step"].is_number_integer() && json.contains("data") &&
                        json["data"].is_array() && json.contains("federation") &&
                        json["federation"].is_string();
  if (!readable || json["global_step"].get<int64_t>() != step) {
    return absl::DataLossError(
        absl::StrCat(path.string(), ": is damaged; remove this checkpoint's folder"));
  }
  TrainerState state{.global_step = step, .federation = json["federation"].get<std::string>()};
  for (const Json& cursor : json["data"]) {
    PCMOE_ASSIGN_OR_RETURN(data::Cursor parsed, data::Cursor::FromJson(cursor.dump()));
    state.cursors.push_back(parsed);
  }
  return state;
}

absl::StatusOr<TrainerState> Checkpoints::Load(int64_t step, PartyModel& model) const {
  PCMOE_ASSIGN_OR_RETURN(TrainerState state, ReadState(step));
  PCMOE_RETURN_IF_ERROR(model.Load(FolderOf(step)));
  return state;
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

absl::Status Checkpoints::Prune(int64_t common_step) {
  const std::vector<int64_t> steps = Steps();
  for (size_t i = 0; i + static_cast<size_t>(total_limit_) < steps.size(); ++i) {
    if (steps[i] < common_step) PCMOE_RETURN_IF_ERROR(Retire(steps[i]));
  }
  return absl::OkStatus();
}

}  // namespace pcmoe::train
