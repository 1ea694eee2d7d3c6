// pcmoe/model/bench_config.h: the shape that the programs measure with which time a step or a part
// of it.
#pragma once

#include "pcmoe/model/config.h"

namespace pcmoe::model {

/// olmoe, 4 layers, 256 wide, 16 experts, top 4: that of the figures hf_fp32 and hf_best.
inline ModelConfig BenchConfig() {
  ModelConfig config;
  config.family = Family::kOlmoe;
  config.vocab_size = 8192;
  config.hidden_size = 256;
  config.num_layers = 4;
  config.num_heads = config.num_kv_heads = 4;
  config.head_dim = 64;
  config.num_experts = 16;
  config.experts_per_token = 4;
  config.expert_size = 256;
  config.qk_norm = ModelConfig::QkNorm::kFull;
  config.sparse_layers.assign(4, true);
  return config;
}

}  // namespace pcmoe::model
