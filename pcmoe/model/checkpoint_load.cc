// pcmoe/model/checkpoint_load.cc: fills a model's weights from a Hugging Face folder
// (parameters.h).
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"
#include "pcmoe/base/file.h"
#include "pcmoe/base/log.h"
#include "pcmoe/model/slots.h"
#include "pcmoe/tensor/shape.h"

namespace pcmoe::model {
namespace {

namespace fs = std::filesystem;
using tensor::SafetensorsReader;

constexpr uint64_t kMaxIndexBytes = uint64_t{1} << 28;

// The tensors of a folder, whichever files they are in.
class Checkpoint {
 public:
  static absl::StatusOr<Checkpoint> Open(const fs::path& folder);

  bool Has(const std::string& name) const { return file_of_.contains(name); }
  const std::map<std::string, std::string>& names() const { return file_of_; }
  absl::Status Missing(const std::string& name) const {
    return absl::InvalidArgumentError(
        absl::StrCat(folder_.string(), ": the checkpoint has no tensor ", name));
  }
  absl::Status Read(const std::string& name, const at::Tensor& destination) {
    const auto file = file_of_.find(name);
    if (file == file_of_.end()) return Missing(name);
    return readers_.at(file->second).Read(name, destination);
  }
  // Row `index` of a tensor that must have the shape `dims`.
  absl::Status ReadRow(const std::string& name, const std::vector<int64_t>& dims, int64_t index,
                       const at::Tensor& destination) {
    const SafetensorsReader& reader = readers_.at(file_of_.at(name));
    const std::vector<int64_t>& shape = reader.tensors().at(name).shape;
    if (shape == dims) return reader.ReadRow(name, index, destination);
    return absl::InvalidArgumentError(absl::StrCat(folder_.string(), ": ", name, " has shape ",
                                                   tensor::ShapeText(shape), "; ",
                                                   tensor::ShapeText(dims), " is wanted"));
  }

 private:
  explicit Checkpoint(fs::path folder) : folder_(std::move(folder)) {}
  absl::Status AddFile(const std::string& file);
  absl::Status AddIndex(const fs::path& path);

  fs::path folder_;
  std::map<std::string, SafetensorsReader> readers_;
  std::map<std::string, std::string> file_of_;  // Tensor name -> file.
};

absl::Status Checkpoint::AddFile(const std::string& file) {
  if (readers_.contains(file)) return absl::OkStatus();
  PCMOE_ASSIGN_OR_RETURN(SafetensorsReader reader, SafetensorsReader::Open(folder_ / file));
  readers_.emplace(file, std::move(reader));
  return absl::OkStatus();
}

absl::Status Checkpoint::AddIndex(const fs::path& path) {
  PCMOE_ASSIGN_OR_RETURN(const std::string text, base::ReadFile(path, kMaxIndexBytes));
  const auto index = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  const auto bad = [&](std::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat(path.string(), ": ", std::string(what)));
  };
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object()) {
    return bad("is not a safetensors index with a weight_map");
  }
  for (const auto& [name, value] : index["weight_map"].items()) {
    if (!value.is_string()) return bad("weight_map has a value that is no file name");
    const std::string file = value.get<std::string>();
    // A shard lies beside its index; a path could point anywhere.
    if (file.empty() || fs::path(file).filename() != file || file == ".." || file == ".") {
      return bad(absl::StrCat("puts ", name, " in a file outside the folder"));
    }
    PCMOE_RETURN_IF_ERROR(AddFile(file));
    if (!readers_.at(file).Has(name)) {
      return bad(absl::StrCat("puts ", name, " in ", file, ", which does not have it"));
    }
    file_of_.emplace(name, file);
  }
  return absl::OkStatus();
}

absl::StatusOr<Checkpoint> Checkpoint::Open(const fs::path& folder) {
  Checkpoint checkpoint(folder);
  std::error_code ignored;
  const std::string whole = "model.safetensors";
  const fs::path index = folder / "model.safetensors.index.json";
  if (fs::exists(folder / whole, ignored)) {
    PCMOE_RETURN_IF_ERROR(checkpoint.AddFile(whole));
    for (const auto& [name, entry] : checkpoint.readers_.at(whole).tensors()) {
      checkpoint.file_of_.emplace(name, whole);
    }
  } else if (fs::exists(index, ignored)) {
    PCMOE_RETURN_IF_ERROR(checkpoint.AddIndex(index));
  } else {
    return absl::NotFoundError(absl::StrCat(
        folder.string(), ": has neither model.safetensors nor model.safetensors.index.json"));
  }
  return checkpoint;
}

// transformers 5 calls Mixtral's folder of experts like everybody's when it writes fused names.
std::string FusedSpelling(const std::string& name) {
  return absl::StrReplaceAll(name, {{".block_sparse_moe.", ".mlp."}});
}

std::string FusedName(int64_t layer, const char* which) {
  return absl::StrCat("model.layers.", layer, ".mlp.experts.", which);
}

absl::Status LoadBackbone(Checkpoint& checkpoint, const ModelConfig& config,
                          BackboneParameters& backbone) {
  for (const Slot& slot : BackboneSlots(config, backbone)) {
    if (!slot.tensor->defined()) continue;  // elsewhere
    const std::string fused = FusedSpelling(slot.name);
    const std::string& name =
        checkpoint.Has(slot.name) || !checkpoint.Has(fused) ? slot.name : fused;
    PCMOE_RETURN_IF_ERROR(checkpoint.Read(name, *slot.tensor));
  }
  return absl::OkStatus();
}

absl::Status LoadFusedLayer(Checkpoint& checkpoint, const ModelConfig& config, int64_t layer,
                            ExpertLayerParameters& own) {
  const std::string gate_up = FusedName(layer, "gate_up_proj");
  const std::string down = FusedName(layer, "down_proj");
  if (!checkpoint.Has(down)) return checkpoint.Missing(down);
  const int64_t width = config.hidden_size;
  const int64_t size = config.expert_size;
  for (size_t row = 0; row < own.expert_ids.size(); ++row) {
    const auto index = static_cast<int64_t>(row);
    PCMOE_RETURN_IF_ERROR(checkpoint.ReadRow(gate_up, {config.num_experts, 2 * size, width},
                                             own.expert_ids[row],
                                             own.gate_up_efd.select(0, index)));
    PCMOE_RETURN_IF_ERROR(checkpoint.ReadRow(down, {config.num_experts, width, size},
                                             own.expert_ids[row], own.down_edf.select(0, index)));
  }
  return absl::OkStatus();
}

absl::Status LoadExperts(Checkpoint& checkpoint, const ModelConfig& config,
                         ExpertParameters& experts) {
  ExpertParameters per_expert = experts;
  for (size_t i = 0; i < experts.size(); ++i) {
    const auto layer = static_cast<int64_t>(i);
    if (!checkpoint.Has(FusedName(layer, "gate_up_proj"))) continue;
    PCMOE_RETURN_IF_ERROR(LoadFusedLayer(checkpoint, config, layer, experts[i]));
    per_expert[i] = {};
  }
  for (const NamedTensor& item : NamedExperts(config, per_expert)) {
    PCMOE_RETURN_IF_ERROR(checkpoint.Read(item.name, item.tensor));
  }
  return absl::OkStatus();
}

// A tensor that nobody reads may mean a model that we compute wrongly; say so, as transformers
// does.
void WarnOfUnknown(const Checkpoint& checkpoint, const ModelConfig& config) {
  std::set<std::string> known{"lm_head.weight"};
  BackboneParameters shapes_only;
  for (const Slot& slot : BackboneSlots(config, shapes_only)) {
    known.insert(slot.name);
    known.insert(FusedSpelling(slot.name));
  }
  int64_t unknown = 0;
  std::string first;
  for (const auto& [name, file] : checkpoint.names()) {
    if (known.contains(name) || absl::StrContains(name, ".experts.") ||
        absl::EndsWith(name, "rotary_emb.inv_freq")) {
      continue;
    }
    if (unknown++ == 0) first = name;
  }
  if (unknown > 0) {
    base::LogWarning(absl::StrCat("the checkpoint has ", unknown,
                                  " tensors that this model does not use, the first of them ",
                                  first));
  }
}

}  // namespace

absl::Status LoadCheckpoint(const fs::path& folder, const ModelConfig& config,
                            BackboneParameters& backbone, ExpertParameters& experts) {
  PCMOE_ASSIGN_OR_RETURN(Checkpoint checkpoint, Checkpoint::Open(folder));
  PCMOE_RETURN_IF_ERROR(LoadBackbone(checkpoint, config, backbone));
  PCMOE_RETURN_IF_ERROR(LoadExperts(checkpoint, config, experts));
  WarnOfUnknown(checkpoint, config);
  return absl::OkStatus();
}

}  // namespace pcmoe::model
