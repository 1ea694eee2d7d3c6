// pcmoe/plan/traffic.cc: see plan.h; what the exchange `rows` puts on the wire (DESIGN 3.2).
#include <algorithm>

#include "pcmoe/plan/plan.h"

namespace pcmoe::plan {

double ShareOfRows(int64_t experts, int64_t experts_per_token, int64_t owned) {
  // C(E - owned, K) / C(E, K), factor by factor: no expert of the K is among the owned ones.
  double none = 1;
  for (int64_t k = 0; k < experts_per_token; ++k) {
    none *=
        std::max(0.0, static_cast<double>(experts - owned - k)) / static_cast<double>(experts - k);
  }
  return 1 - none;
}

Traffic PredictTraffic(const model::ModelConfig& config, const Recipe& recipe, int64_t parties) {
  Traffic traffic;
  // Dealt out round-robin, expert e to party e mod n. A party's own share is different for each
  // when n does not divide E: the mean over the parties.
  for (int64_t home = 0; home < parties; ++home) {
    for (int64_t owner = 0; owner < parties; ++owner) {
      if (owner == home) continue;
      const int64_t owned = (config.num_experts - owner + parties - 1) / parties;
      traffic.remote_owners +=
          ShareOfRows(config.num_experts, config.experts_per_token, std::max<int64_t>(owned, 0)) /
          static_cast<double>(parties);
    }
  }
  const auto sparse = static_cast<double>(
      std::count(config.sparse_layers.begin(), config.sparse_layers.end(), true));
  traffic.bytes_per_token = sparse * 4 * traffic.remote_owners *
                            static_cast<double>(config.hidden_size * recipe.compute_bytes());
  traffic.bytes_per_step =
      traffic.bytes_per_token * static_cast<double>(recipe.tokens() * recipe.micro_batches);
  return traffic;
}

}  // namespace pcmoe::plan
