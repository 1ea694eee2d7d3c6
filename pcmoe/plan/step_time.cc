// pcmoe/plan/step_time.cc: see weights_plan.h; how long a step takes over a link, and from how many
// tokens on `weights` is the better exchange.
#include <algorithm>
#include <limits>

#include "pcmoe/plan/weights_plan.h"

namespace pcmoe::plan {
namespace {

double TransferSeconds(const Link& link, double bytes) { return 8 * bytes / (1e6 * link.mbit); }

double ComputeSeconds(const Link& link, double tokens) {
  return link.tokens_per_s > 0 ? tokens / link.tokens_per_s : 0;
}

// One-way delays that a step of `rows` waits: begin, vote, and four a layer of experts.
double RowsWaits(const model::ModelConfig& config) {
  const auto sparse = std::count(config.sparse_layers.begin(), config.sparse_layers.end(), true);
  return 2 + 4 * static_cast<double>(sparse);
}

}  // namespace

double RowsSeconds(const model::ModelConfig& config, const Recipe& recipe, int64_t parties,
                   const Link& link, double tokens) {
  if (parties == 1) return ComputeSeconds(link, tokens);
  const double bytes = tokens * PredictTraffic(config, recipe, parties).bytes_per_token;
  return ComputeSeconds(link, tokens) + TransferSeconds(link, bytes) +
         RowsWaits(config) * link.round_trip / 2;
}

double WeightsSeconds(const WeightsPlan& plan, const Link& link, double tokens) {
  const double compute = ComputeSeconds(link, tokens);
  if (plan.parties() == 1) return compute;
  return std::max(compute, TransferSeconds(link, plan.BusiestStep())) +
         kWeightsWaits * link.round_trip / 2;
}

double BreakEvenTokens(const model::ModelConfig& config, const Recipe& recipe, int64_t parties,
                       const WeightsPlan& plan) {
  const double a_token = PredictTraffic(config, recipe, parties).bytes_per_token;
  return a_token > 0 ? plan.BusiestStep() / a_token : std::numeric_limits<double>::infinity();
}

double BreakEvenTokens(const model::ModelConfig& config, const Recipe& recipe, int64_t parties,
                       const WeightsPlan& plan, const Link& link) {
  const double a_token =
      TransferSeconds(link, PredictTraffic(config, recipe, parties).bytes_per_token);
  if (!(a_token > 0)) return std::numeric_limits<double>::infinity();
  const double fixed = (kWeightsWaits - RowsWaits(config)) * link.round_trip / 2;
  const double transfer = TransferSeconds(link, plan.BusiestStep());
  // The time that `rows` takes more grows with the tokens throughout, so there is one place.
  const double hidden = std::max(0.0, (transfer + fixed) / (a_token + ComputeSeconds(link, 1)));
  if (ComputeSeconds(link, hidden) <= transfer) return hidden;
  return std::max(0.0, fixed / a_token);
}

}  // namespace pcmoe::plan
