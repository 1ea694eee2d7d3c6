// pcmoe/model/parameters.h: the weights of a model: the backbone, and the experts somebody owns.
// Shape legend: V vocabulary, D hidden width, F expert width, E experts, H query width, G key
// width.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "pcmoe/base/digest.h"
#include "pcmoe/base/status.h"
#include "pcmoe/model/config.h"
#include "pcmoe/tensor/safetensors.h"

namespace pcmoe::model {

/// A SwiGLU of the backbone: down(silu(gate x) * up x).
struct MlpParameters {
  at::Tensor gate_fd, up_fd, down_df;
};

/// The backbone of one layer; tensors a family does not have are undefined.
struct LayerParameters {
  at::Tensor input_norm_d, post_norm_d;
  at::Tensor q_hd, k_gd, v_gd, o_dh;  ///< [H,D] [G,D] [G,D] [D,H], as torch Linear.
  at::Tensor q_bias_h, k_bias_g, v_bias_g, o_bias_d;
  at::Tensor q_norm, k_norm;  ///< [H],[G] (kFull) or [head_dim] (kPerHead).
  at::Tensor router_ed;       ///< Sparse layers.
  MlpParameters shared;       ///< Shared expert (qwen2_moe).
  at::Tensor shared_gate_1d;  ///< Its sigmoid gate [1,D].
  MlpParameters dense;        ///< Layers that are not sparse.
};

struct BackboneParameters {
  at::Tensor embedding_vd;
  std::vector<LayerParameters> layers;
  at::Tensor final_norm_d;
  at::Tensor head_vd;  ///< The same tensor as embedding_vd when tied.
};

/// The owned experts of one layer, in ascending global id. Gate rows come first in gate_up.
struct ExpertLayerParameters {
  std::vector<int64_t> expert_ids;  ///< Global ids of the rows below.
  at::Tensor gate_up_efd;           ///< [E_own, 2F, D]
  at::Tensor down_edf;              ///< [E_own, D, F]
};

/// One entry a layer; empty tensors and ids for layers that are not sparse or own nothing.
using ExpertParameters = std::vector<ExpertLayerParameters>;

/// (layer) -> the global expert ids wanted, ascending. All experts: `AllExperts(config)`.
using ExpertSelection = std::function<std::vector<int64_t>(int64_t layer)>;
ExpertSelection AllExperts(const ModelConfig& config);

/// A weight under the name it has in a Hugging Face checkpoint of the family; its tensor is the
/// parameter or a view of it: writing to it writes to the model.
using NamedTensor = tensor::NamedTensor;

/// Every backbone weight once, in a fixed order (tied heads are not repeated). Undefined tensors
/// are left out, so a structure of gradients that has only some of them will do.
std::vector<NamedTensor> NamedBackbone(const ModelConfig& config,
                                       const BackboneParameters& weights);

/// Every owned expert's tensors under per-expert names (gate, up and down as views that autograd
/// does not follow); works too for a structure that holds gradients or optimizer moments of these
/// shapes.
std::vector<NamedTensor> NamedExperts(const ModelConfig& config, const ExpertParameters& weights);

/// How a part of the backbone (embedding, a layer's block, or head with the last norm) is held.
enum class Part : uint8_t {
  kElsewhere,  ///< Another party owns it; it is fetched.
  kFrozen,     ///< Here, and never trained.
  kPrivate,    ///< Here, trained on this party's tokens alone.
  kUnit,       ///< Here, trained on sums over the federation: this party owns it.
};

/// What one party holds of a model.
struct Holdings {
  ExpertSelection experts;
  std::vector<Part> blocks_l;  ///< Empty: all private.
  Part embedding = Part::kPrivate;
  Part head = Part::kPrivate;  ///< Tied heads follow the embedding.
  Part Block(int64_t layer) const {
    return blocks_l.empty() ? Part::kPrivate : blocks_l[static_cast<size_t>(layer)];
  }
};

/// How the backbone tensor of this checkpoint name is held.
Part PartOf(const Holdings& holdings, std::string_view name);

/// Allocates without filling. fp32 unless `dtype` says otherwise. What is elsewhere stays
/// undefined.
BackboneParameters EmptyBackbone(const ModelConfig& config, at::ScalarType dtype = at::kFloat);
BackboneParameters EmptyBackbone(const ModelConfig& config, const Holdings& holdings);
ExpertParameters EmptyExperts(const ModelConfig& config, const ExpertSelection& selection,
                              at::ScalarType dtype = at::kFloat);

/// Random initialisation with transformers' distributions (normal(0, initializer_range) for
/// matrices and embeddings, ones for norms, zeros for biases and the padding token's row). Every
/// tensor's values depend only on `seed` and its checkpoint name, not on threads or processor, so
/// an owner initialises its experts without the others.
void Initialise(const ModelConfig& config, uint64_t seed, BackboneParameters& backbone);
void Initialise(const ModelConfig& config, uint64_t seed, ExpertParameters& experts);

/// Fills the weights from a checkpoint folder (model.safetensors, or index with shards; per-expert
/// or fused expert names). INVALID_ARGUMENT names a missing tensor, a wrong shape or dtype.
absl::Status LoadCheckpoint(const std::filesystem::path& folder, const ModelConfig& config,
                            BackboneParameters& backbone, ExpertParameters& experts);

/// Writes weights as transformers reads them: config.json byte for byte, tokenizer and generation
/// files copied from `base_folder` when it is not empty, model.safetensors (or shards of at most
/// `max_shard_bytes` with an index). `experts` may hold a part of the experts. Not atomic by
/// itself.
absl::Status SaveCheckpoint(const std::filesystem::path& folder, const ModelConfig& config,
                            const BackboneParameters& backbone, const ExpertParameters& experts,
                            const std::filesystem::path& base_folder = {},
                            uint64_t max_shard_bytes = 5'000'000'000);

/// SHA-256 over the names and digests of the folder's .safetensors files: what a manifest names.
absl::StatusOr<base::Sha256> DigestOfCheckpoint(const std::filesystem::path& folder);

/// Elements of each part of the backbone, from the config alone.
struct BackboneSizes {
  int64_t embedding = 0;
  std::vector<int64_t> blocks_l;
  int64_t head = 0;  ///< Last norm, and the head unless it is tied.
};
BackboneSizes SizesOfBackbone(const ModelConfig& config);

/// Parameter counts from the config alone.
struct ParameterCount {
  int64_t total = 0;
  int64_t experts = 0;   ///< Routed experts of all layers.
  int64_t backbone = 0;  ///< Everything else.
  int64_t active = 0;    ///< Used by one token.
  int64_t per_expert = 0;
};
ParameterCount CountParameters(const ModelConfig& config);

}  // namespace pcmoe::model
