// pcmoe/model/checkpoint_save.cc: writes a model as a folder that transformers loads
// (checkpoint_writer.h, parameters.h).
#include <array>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <utility>

#include "absl/strings/str_format.h"
#include "pcmoe/base/file.h"
#include "pcmoe/model/checkpoint_writer.h"

namespace pcmoe::model {
namespace {

namespace fs = std::filesystem;

// Everything beside the weights that belongs to a model and that training does not change.
constexpr std::array<const char*, 10> kCopied{"generation_config.json",
                                              "tokenizer.json",
                                              "tokenizer_config.json",
                                              "tokenizer.model",
                                              "special_tokens_map.json",
                                              "added_tokens.json",
                                              "vocab.json",
                                              "merges.txt",
                                              "chat_template.jinja",
                                              "chat_template.json"};
constexpr const char* kTemplates = "additional_chat_templates";
constexpr const char* kIndex = "model.safetensors.index.json";

absl::Status CopyFiles(const fs::path& from, const fs::path& to) {
  std::error_code error;
  if (from.empty() || fs::equivalent(from, to, error)) return absl::OkStatus();
  const auto failed = [&](const char* name) {
    return absl::FailedPreconditionError(absl::StrCat(
        (from / name).string(), ": cannot copy it to ", to.string(), ": ", error.message()));
  };
  for (const char* name : kCopied) {
    if (!fs::exists(from / name, error)) continue;
    fs::copy_file(from / name, to / name, fs::copy_options::overwrite_existing, error);
    if (error) return failed(name);
  }
  if (!fs::exists(from / kTemplates, error)) return absl::OkStatus();
  fs::copy(from / kTemplates, to / kTemplates,
           fs::copy_options::overwrite_existing | fs::copy_options::recursive, error);
  return error ? failed(kTemplates) : absl::OkStatus();
}

// Weights of an earlier save under other file names would be read instead of, or beside, the new
// ones.
absl::Status RemoveStale(const fs::path& folder, const std::set<std::string>& written) {
  static const std::regex pattern(R"(model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?)");
  std::vector<fs::path> stale;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (std::regex_match(name, pattern) && !written.contains(name)) stale.push_back(entry.path());
  }
  for (const fs::path& path : stale) {
    if (!error) fs::remove(path, error);
  }
  if (!error) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(folder.string(), ": cannot remove an earlier save: ", error.message()));
}

}  // namespace

absl::StatusOr<CheckpointWriter> CheckpointWriter::Create(const fs::path& folder,
                                                          const ModelConfig& config,
                                                          const fs::path& base_folder,
                                                          uint64_t max_shard_bytes) {
  if (config.raw_json.empty()) {
    return absl::FailedPreconditionError(absl::StrCat(
        folder.string(), ": the model has no config.json to write; read its config from a file"));
  }
  PCMOE_RETURN_IF_ERROR(base::CreateFolder(folder));
  PCMOE_RETURN_IF_ERROR(CopyFiles(base_folder, folder));
  PCMOE_RETURN_IF_ERROR(base::WriteFileAtomically(folder / "config.json", config.raw_json));
  return CheckpointWriter(folder, max_shard_bytes);
}

absl::Status CheckpointWriter::Add(std::vector<NamedTensor> tensors) {
  for (NamedTensor& item : tensors) {
    const uint64_t size = item.tensor.nbytes();
    if (!waiting_.empty() && waiting_bytes_ + size > max_shard_bytes_) {
      PCMOE_RETURN_IF_ERROR(WriteShard());
    }
    waiting_.push_back(std::move(item));
    waiting_bytes_ += size;
    total_bytes_ += size;
  }
  return absl::OkStatus();
}

// How many shards there will be is not known yet, and is in their names.
fs::path CheckpointWriter::Unfinished(size_t shard) const {
  return folder_ / absl::StrFormat("model-%05d.unfinished", shard + 1);
}

absl::Status CheckpointWriter::WriteShard() {
  PCMOE_RETURN_IF_ERROR(
      tensor::WriteSafetensors(Unfinished(names_by_shard_.size()), waiting_).status());
  std::vector<std::string>& names = names_by_shard_.emplace_back();
  for (const NamedTensor& item : waiting_) names.push_back(item.name);
  waiting_.clear();
  waiting_bytes_ = 0;
  return absl::OkStatus();
}

absl::Status CheckpointWriter::WriteIndex(const std::vector<std::string>& files) const {
  nlohmann::json weight_map = nlohmann::json::object();
  for (size_t i = 0; i < files.size(); ++i) {
    for (const std::string& name : names_by_shard_[i]) weight_map[name] = files[i];
  }
  const nlohmann::json index{{"metadata", {{"total_size", total_bytes_}}},
                             {"weight_map", weight_map}};
  return base::WriteFileAtomically(folder_ / kIndex, index.dump(2) + "\n");
}

absl::Status CheckpointWriter::Finish() {
  PCMOE_RETURN_IF_ERROR(WriteShard());
  const size_t count = names_by_shard_.size();
  std::vector<std::string> files;
  for (size_t i = 0; i < count; ++i) {
    files.push_back(count == 1 ? "model.safetensors"
                               : absl::StrFormat("model-%05d-of-%05d.safetensors", i + 1, count));
    std::error_code error;
    fs::rename(Unfinished(i), folder_ / files.back(), error);
    if (error) {
      return absl::DataLossError(absl::StrCat((folder_ / files.back()).string(),
                                              ": cannot be renamed to: ", error.message()));
    }
  }
  std::set<std::string> written(files.begin(), files.end());
  if (count > 1) {
    PCMOE_RETURN_IF_ERROR(WriteIndex(files));
    written.insert(kIndex);
  }
  return RemoveStale(folder_, written);
}

absl::Status SaveCheckpoint(const fs::path& folder, const ModelConfig& config,
                            const BackboneParameters& backbone, const ExpertParameters& experts,
                            const fs::path& base_folder, uint64_t max_shard_bytes) {
  PCMOE_ASSIGN_OR_RETURN(CheckpointWriter writer,
                         CheckpointWriter::Create(folder, config, base_folder, max_shard_bytes));
  PCMOE_RETURN_IF_ERROR(writer.Add(NamedBackbone(config, backbone)));
  PCMOE_RETURN_IF_ERROR(writer.Add(NamedExperts(config, experts)));
  return writer.Finish();
}

}  // namespace pcmoe::model
