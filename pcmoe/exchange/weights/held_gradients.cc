// pcmoe/exchange/weights/held_gradients.cc: see held_gradients.h.
#include "pcmoe/exchange/weights/held_gradients.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "pcmoe/tensor/safetensors.h"

namespace pcmoe::exchange {
namespace {

constexpr char kFile[] = "held_gradients.safetensors";

std::string NameOf(std::pair<int64_t, int64_t> key, absl::string_view part) {
  return absl::StrCat(key.first, ".", key.second, ".", part);
}

}  // namespace

HeldGradients::HeldGradients(const model::ModelConfig& config, int64_t min_rows)
    : config_(config), min_rows_(min_rows) {
  Clear();
}

void HeldGradients::Clear() {
  kept_.clear();
  next_kept_.clear();
  rows_le_.assign(static_cast<size_t>(config_.num_layers), {});
  for (size_t l = 0; l < rows_le_.size(); ++l) {
    if (config_.sparse_layers[l]) rows_le_[l].resize(static_cast<size_t>(config_.num_experts), 0);
  }
  next_rows_le_ = rows_le_;
}

void HeldGradients::Decide(const std::vector<std::vector<int64_t>>& rows_le) {
  next_kept_.clear();
  next_rows_le_ = rows_le_;
  for (size_t l = 0; l < rows_le_.size(); ++l) {
    for (size_t e = 0; e < rows_le_[l].size(); ++e) {
      int64_t& rows = next_rows_le_[l][e];
      rows += rows_le[l][e];
      if (rows >= min_rows_) rows = 0;
    }
  }
}

bool HeldGradients::Releases(int64_t layer, int64_t expert) const {
  return off() || next_rows_le_[static_cast<size_t>(layer)][static_cast<size_t>(expert)] == 0;
}

void HeldGradients::Apply(int64_t layer, int64_t expert, at::Tensor& gate_up_fd,
                          at::Tensor& down_df) {
  if (off()) return;
  const auto before = kept_.find({layer, expert});
  if (before != kept_.end()) {
    gate_up_fd.add_(before->second.gate_up_fd);
    down_df.add_(before->second.down_df);
  }
  if (Releases(layer, expert)) return;
  next_kept_[{layer, expert}] = {gate_up_fd.clone(), down_df.clone()};
  gate_up_fd.zero_();
  down_df.zero_();
}

void HeldGradients::Commit() {
  if (off()) return;
  kept_ = std::move(next_kept_);
  next_kept_.clear();
  rows_le_ = next_rows_le_;
}

void HeldGradients::Reset() { next_kept_.clear(); }

int64_t HeldGradients::held() const { return static_cast<int64_t>(kept_.size()); }

absl::Status HeldGradients::Save(const std::filesystem::path& folder) const {
  if (off()) return absl::OkStatus();
  std::vector<tensor::NamedTensor> tensors;
  for (const auto& [key, kept] : kept_) {
    tensors.push_back({NameOf(key, "gate_up"), kept.gate_up_fd});
    tensors.push_back({NameOf(key, "down"), kept.down_df});
  }
  at::Tensor rows = at::zeros({config_.num_layers, config_.num_experts}, at::kLong);
  for (size_t l = 0; l < rows_le_.size(); ++l) {
    std::copy(rows_le_[l].begin(), rows_le_[l].end(),
              rows.mutable_data_ptr<int64_t>() + static_cast<int64_t>(l) * config_.num_experts);
  }
  tensors.push_back({"rows", rows});
  return tensor::WriteSafetensors(folder / kFile, tensors).status();
}

absl::Status HeldGradients::Load(const std::filesystem::path& folder) {
  Clear();
  if (off()) return absl::OkStatus();
  PCMOE_ASSIGN_OR_RETURN(const tensor::SafetensorsReader reader,
                         tensor::SafetensorsReader::Open(folder / kFile));
  at::Tensor rows = at::zeros({config_.num_layers, config_.num_experts}, at::kLong);
  PCMOE_RETURN_IF_ERROR(reader.Read("rows", rows));
  const int64_t* from = rows.const_data_ptr<int64_t>();
  for (size_t l = 0; l < rows_le_.size(); ++l) {
    for (size_t e = 0; e < rows_le_[l].size(); ++e) {
      const Key key{static_cast<int64_t>(l), static_cast<int64_t>(e)};
      rows_le_[l][e] = from[key.first * config_.num_experts + key.second];
      if (!reader.Has(NameOf(key, "down"))) continue;
      Kept kept{at::empty({2 * config_.expert_size, config_.hidden_size}, at::kFloat),
                at::empty({config_.hidden_size, config_.expert_size}, at::kFloat)};
      PCMOE_RETURN_IF_ERROR(reader.Read(NameOf(key, "gate_up"), kept.gate_up_fd));
      PCMOE_RETURN_IF_ERROR(reader.Read(NameOf(key, "down"), kept.down_df));
      kept_[key] = std::move(kept);
    }
  }
  next_rows_le_ = rows_le_;
  return absl::OkStatus();
}

}  // namespace pcmoe::exchange
