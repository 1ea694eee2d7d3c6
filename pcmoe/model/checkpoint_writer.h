// pcmoe/model/checkpoint_writer.h: writes a Hugging Face folder tensor by tensor, a shard at a
// time.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "pcmoe/model/parameters.h"

namespace pcmoe::model {

/// transformers' "5GB".
inline constexpr uint64_t kDefaultShardBytes = 5'000'000'000;

/// config.json byte for byte, tokenizer and generation files of a base, and the weights: one
/// model.safetensors, or shards with an index. Not atomic by itself. One thread.
class CheckpointWriter {
 public:
  /// Makes the folder and copies what is copied; from `base_folder` nothing when it is empty.
  /// Shards have at most `max_shard_bytes` of numbers; a larger tensor has one of its own.
  static absl::StatusOr<CheckpointWriter> Create(const std::filesystem::path& folder,
                                                 const ModelConfig& config,
                                                 const std::filesystem::path& base_folder,
                                                 uint64_t max_shard_bytes);

  /// The next tensors; each is held until its shard is full.
  absl::Status Add(std::vector<NamedTensor> tensors);

  /// Writes what is left, names the shards, writes the index, and removes weights of an earlier
  /// save.
  absl::Status Finish();

  uint64_t total_bytes() const { return total_bytes_; }
  size_t shards() const { return names_by_shard_.size(); }

 private:
  CheckpointWriter(std::filesystem::path folder, uint64_t max_shard_bytes)
      : folder_(std::move(folder)), max_shard_bytes_(max_shard_bytes) {}
  absl::Status WriteShard();
  std::filesystem::path Unfinished(size_t shard) const;
  absl::Status WriteIndex(const std::vector<std::string>& files) const;

  std::filesystem::path folder_;
  uint64_t max_shard_bytes_;
  std::vector<NamedTensor> waiting_;
  uint64_t waiting_bytes_ = 0, total_bytes_ = 0;
  std::vector<std::vector<std::string>> names_by_shard_;
};

}  // namespace pcmoe::model
