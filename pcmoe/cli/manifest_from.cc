// pcmoe/cli/manifest_from.cc: see manifest_from.h.
#include "pcmoe/cli/manifest_from.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "pcmoe/base/digest.h"
#include "pcmoe/base/file.h"
#include "pcmoe/base/log.h"
#include "pcmoe/federation/placement.h"
#include "pcmoe/model/parameters.h"

namespace pcmoe::cli {
namespace {

namespace fs = std::filesystem;

// A JSON file: a list of party names (all layers alike), or one such list a sparse layer.
absl::StatusOr<federation::Owners> ReadPlacement(const std::string& path,
                                                 const federation::Manifest& manifest) {
  PCMOE_ASSIGN_OR_RETURN(const std::string text, base::ReadFile(path, 16 << 20));
  nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  const auto bad = [&path] {
    return absl::InvalidArgumentError(absl::StrCat(
        path,
        ": a placement is a JSON list of party names, one an expert, or a list of such lists"));
  };
  if (!json.is_array() || json.empty()) return bad();
  if (!json[0].is_array()) json = nlohmann::json::array({json});
  federation::Owners owners;
  for (const nlohmann::json& row : json) {
    if (!row.is_array()) return bad();
    owners.emplace_back();
    for (const nlohmann::json& name : row) {
      if (!name.is_string()) return bad();
      PCMOE_ASSIGN_OR_RETURN(const size_t index, manifest.IndexOf(name.get<std::string>()));
      owners.back().push_back(static_cast<uint32_t>(index));
    }
  }
  return owners;
}

// No message of unit weights in fp32 is larger, whatever is aggregated: the most experts that a
// party has in a layer with the largest block, or embedding, or head.
uint64_t LargestMessage(const model::ModelConfig& model, const federation::Placement& placement) {
  size_t owned = 0;
  for (int layer = 0; layer < placement.layers(); ++layer) {
    for (int party = 0; party < placement.parties(); ++party) {
      owned = std::max(owned, placement.ExpertsOf(party, layer).size());
    }
  }
  const auto experts = static_cast<int64_t>(owned);
  const model::BackboneSizes sizes = model::SizesOfBackbone(model);
  const int64_t block = *std::max_element(sizes.blocks_l.begin(), sizes.blocks_l.end());
  const int64_t layer = experts * 3 * model.expert_size * model.hidden_size + block;
  constexpr uint64_t kPadding = 1 << 20;          // 64 bytes a tensor at most
  constexpr uint64_t kMost = uint64_t{16} << 30;  // that a manifest may say
  const auto elements = static_cast<uint64_t>(std::max({layer, sizes.embedding, sizes.head}));
  return std::min(4 * elements + kPadding, kMost);
}

}  // namespace

absl::StatusOr<federation::Manifest> ManifestFrom(train::RunConfig config,
                                                  std::vector<federation::PartyEntry> parties) {
  PCMOE_RETURN_IF_ERROR(config.Validate());
  PCMOE_ASSIGN_OR_RETURN(const model::ModelConfig model,
                         model::LoadConfig(config.model_name_or_path));
  federation::Manifest manifest;
  manifest.name = "pcmoe";
  manifest.parties = std::move(parties);
  manifest.model_config_sha256 = base::DigestOf(model.raw_json);
  const fs::path folder = config.model_name_or_path;
  if (fs::is_directory(folder) && (fs::exists(folder / "model.safetensors") ||
                                   fs::exists(folder / "model.safetensors.index.json"))) {
    PCMOE_ASSIGN_OR_RETURN(manifest.checkpoint_sha256, model::DigestOfCheckpoint(folder));
  }
  if (config.exchange == "weights" && config.embedding == "auto" && !manifest.checkpoint_sha256) {
    base::LogInfo(
        "the model starts from scratch, so every party trains embedding and head by itself; from a "
        "common checkpoint the embedding is frozen, which is nearer to one centralised run");
  }
  PCMOE_RETURN_IF_ERROR(train::ResolveBackbone(manifest.checkpoint_sha256.has_value(),
                                               model.tie_word_embeddings, model.hidden_size,
                                               config));
  manifest.exchange =
      config.exchange == "rows" ? federation::Exchange::kRows : federation::Exchange::kWeights;
  manifest.init_seed = static_cast<uint64_t>(config.seed);
  manifest.schedule_seed = static_cast<uint64_t>(config.seed);
  manifest.schedule = config.schedule == "round_robin" ? federation::Schedule::kRoundRobin
                                                       : federation::Schedule::kSynchronous;
  if (config.placement != "round_robin") {
    PCMOE_ASSIGN_OR_RETURN(manifest.owners, ReadPlacement(config.placement, manifest));
  }
  const auto sparse =
      static_cast<size_t>(std::count(model.sparse_layers.begin(), model.sparse_layers.end(), true));
  PCMOE_ASSIGN_OR_RETURN(
      const federation::Placement placement,
      federation::Placement::Create(manifest.owners, sparse, static_cast<size_t>(model.num_experts),
                                    manifest.parties.size()));
  manifest.limits.max_message_bytes =
      std::max(manifest.limits.max_message_bytes, LargestMessage(model, placement));
  manifest.max_steps = static_cast<uint64_t>(config.max_steps);
  manifest.training = train::SharedTraining(config);
  return manifest;
}

}  // namespace pcmoe::cli
