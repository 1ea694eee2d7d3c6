// pcmoe/model/checkpoint_save.cc: writes a model as a folder that transformers loads
// (parameters.h).
#include <array>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <utility>

#include "absl/strings/str_format.h"
#include "pcmoe/base/file.h"
#include "pcmoe/model/parameters.h"

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

// Consecutive tensors, as many a shard as fit `max_bytes`; a larger tensor has a shard of its own.
std::vector<std::span<const NamedTensor>> Shards(std::span<const NamedTensor> tensors,
                                                 uint64_t max_bytes) {
  std::vector<std::span<const NamedTensor>> shards;
  size_t begin = 0;
  uint64_t bytes = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const uint64_t size = tensors[i].tensor.nbytes();
    if (i > begin && bytes + size > max_bytes) {
      shards.push_back(tensors.subspan(begin, i - begin));
      begin = i;
      bytes = 0;
    }
    bytes += size;
  }
  shards.push_back(tensors.subspan(begin));
  return shards;
}

absl::Status WriteIndex(const fs::path& folder, const std::vector<std::string>& files,
                        const std::vector<std::span<const NamedTensor>>& shards) {
  nlohmann::json weight_map = nlohmann::json::object();
  uint64_t total = 0;
  for (size_t i = 0; i < shards.size(); ++i) {
    for (const NamedTensor& item : shards[i]) {
      weight_map[item.name] = files[i];
      total += item.tensor.nbytes();
    }
  }
  const nlohmann::json index{{"metadata", {{"total_size", total}}}, {"weight_map", weight_map}};
  return base::WriteFileAtomically(folder / kIndex, index.dump(2) + "\n");
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

absl::Status SaveCheckpoint(const fs::path& folder, const ModelConfig& config,
                            const BackboneParameters& backbone, const ExpertParameters& experts,
                            const fs::path& base_folder, uint64_t max_shard_bytes) {
  if (config.raw_json.empty()) {
    return absl::FailedPreconditionError(absl::StrCat(
        folder.string(), ": the model has no config.json to write; read its config from a file"));
  }
  PCMOE_RETURN_IF_ERROR(base::CreateFolder(folder));
  PCMOE_RETURN_IF_ERROR(CopyFiles(base_folder, folder));
  PCMOE_RETURN_IF_ERROR(base::WriteFileAtomically(folder / "config.json", config.raw_json));
  std::vector<NamedTensor> tensors = NamedBackbone(config, backbone);
  for (NamedTensor& item : NamedExperts(config, experts)) tensors.push_back(std::move(item));
  const auto shards = Shards(tensors, max_shard_bytes);
  std::vector<std::string> files;
  for (size_t i = 0; i < shards.size(); ++i) {
    files.push_back(shards.size() == 1
                        ? "model.safetensors"
                        : absl::StrFormat("model-%05d-of-%05d.safetensors", i + 1, shards.size()));
    const auto bytes = tensor::WriteSafetensors(folder / files.back(), shards[i]);
    if (!bytes.ok()) return bytes.status();
  }
  std::set<std::string> written(files.begin(), files.end());
  if (shards.size() > 1) {
    PCMOE_RETURN_IF_ERROR(WriteIndex(folder, files, shards));
    written.insert(kIndex);
  }
  return RemoveStale(folder, written);
}

}  // namespace pcmoe::model
