// pcmoe/model/router.cc: see router.h.
#include "pcmoe/model/router.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/softmax.h>

namespace pcmoe::model {
namespace {

constexpr int64_t kTokensPerTask = 128;

}  // namespace

RouterState Route(const ModelConfig& config, const at::Tensor& logits_te) {
  RouterState state;
  state.probabilities_te = at::softmax(logits_te, -1, at::kFloat);
  const int64_t tokens = logits_te.size(0);
  const int64_t experts = config.num_experts;
  const int64_t top_k = config.experts_per_token;
  state.routing.experts_tk = at::empty({tokens, top_k}, at::kLong);
  state.routing.weights_tk = at::empty({tokens, top_k}, at::kFloat);
  const float* probabilities = state.probabilities_te.const_data_ptr<float>();
  int64_t* chosen = state.routing.experts_tk.mutable_data_ptr<int64_t>();
  float* weights = state.routing.weights_tk.mutable_data_ptr<float>();
  at::parallel_for(0, tokens, kTokensPerTask, [&](int64_t begin, int64_t end) {
    std::vector<float> rest(static_cast<size_t>(experts));
    for (int64_t t = begin; t < end; ++t) {
      std::copy_n(probabilities + t * experts, experts, rest.begin());
      float sum = 0;
      for (int64_t k = 0; k < top_k; ++k) {
        const auto best = std::max_element(rest.begin(), rest.end());
        chosen[t * top_k + k] = best - rest.begin();
        weights[t * top_k + k] = *best;
        sum += *best;
        *best = -1.0F;
      }
      if (!config.norm_topk_prob) continue;
      for (int64_t k = 0; k < top_k; ++k) weights[t * top_k + k] /= sum;
    }
  });
  return state;
}

void BalanceLoss::Add(int64_t layer, const RouterState& state) {
  const int64_t experts = static_cast<int64_t>(chosen_e_.size());
  const int64_t tokens = state.probabilities_te.size(0);
  const float* probabilities = state.probabilities_te.const_data_ptr<float>();
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t e = 0; e < experts; ++e) {
      probability_e_[static_cast<size_t>(e)] += probabilities[t * experts + e];
    }
  }
  const int64_t* chosen = state.routing.experts_tk.const_data_ptr<int64_t>();
  std::vector<int64_t>& layer_e = chosen_le_[static_cast<size_t>(layer)];
  layer_e.resize(chosen_e_.size(), 0);
  for (int64_t i = 0; i < state.routing.experts_tk.numel(); ++i) {
    ++chosen_e_[static_cast<size_t>(chosen[i])];
    ++layer_e[static_cast<size_t>(chosen[i])];
  }
  tokens_ += tokens;
}

double BalanceLoss::Value() const {
  if (tokens_ == 0) return 0;
  double sum = 0;
  for (size_t e = 0; e < chosen_e_.size(); ++e) {
    sum += static_cast<double>(chosen_e_[e]) * probability_e_[e];
  }
  const auto n = static_cast<double>(tokens_);
  return static_cast<double>(chosen_e_.size()) * sum / (n * n);
}

std::vector<float> BalanceLoss::Gradient() const {
  return Gradient(FederationLoad{chosen_e_, tokens_});
}

std::vector<float> BalanceLoss::Gradient(const FederationLoad& load) {
  std::vector<float> gradient(load.chosen_e.size(), 0);
  if (load.tokens == 0) return gradient;
  const auto n = static_cast<double>(load.tokens);
  for (size_t e = 0; e < gradient.size(); ++e) {
    gradient[e] = static_cast<float>(static_cast<double>(gradient.size()) *
                                     static_cast<double>(load.chosen_e[e]) / (n * n));
  }
  return gradient;
}

at::Tensor RouteBackward(const ModelConfig& config, const RouterState& state,
                         const at::Tensor& dweights_tk, const std::vector<float>& dprobability_e) {
  const int64_t tokens = state.probabilities_te.size(0);
  const int64_t experts = config.num_experts;
  const int64_t top_k = config.experts_per_token;
  at::Tensor dlogits_te = at::empty({tokens, experts}, at::kFloat);
  const float* probabilities = state.probabilities_te.const_data_ptr<float>();
  const int64_t* chosen = state.routing.experts_tk.const_data_ptr<int64_t>();
  const float* weights = state.routing.weights_tk.const_data_ptr<float>();
  const float* dweights = dweights_tk.const_data_ptr<float>();
  float* dlogits = dlogits_te.mutable_data_ptr<float>();
  at::parallel_for(0, tokens, kTokensPerTask, [&](int64_t begin, int64_t end) {
    std::vector<float> dp(static_cast<size_t>(experts));
    for (int64_t t = begin; t < end; ++t) {
      std::copy(dprobability_e.begin(), dprobability_e.end(), dp.begin());
      const float* p = probabilities + t * experts;
      float mean = 0;  // sum_j s_j ds_j, and Z = sum of the chosen p
      float chosen_sum = 0;
      for (int64_t i = t * top_k; i < (t + 1) * top_k; ++i) {
        mean += weights[i] * dweights[i];
        chosen_sum += p[chosen[i]];
      }
      for (int64_t i = t * top_k; i < (t + 1) * top_k; ++i) {
        dp[static_cast<size_t>(chosen[i])] +=
            config.norm_topk_prob ? (dweights[i] - mean) / chosen_sum : dweights[i];
      }
      float dot = 0;
      for (int64_t e = 0; e < experts; ++e) dot += p[e] * dp[static_cast<size_t>(e)];
      for (int64_t e = 0; e < experts; ++e) {
        dlogits[t * experts + e] = p[e] * (dp[static_cast<size_t>(e)] - dot);
      }
    }
  });
  return dlogits_te;
}

}  // namespace pcmoe::model
