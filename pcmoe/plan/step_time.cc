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

// The experts' part of the work, by parameters that a token is multiplied with.
double ExpertShareOfWork(const model::ModelConfig& config) {
  const model::ParameterCount count = model::CountParameters(config);
  const int64_t looked_up = config.tie_word_embeddings ? 0 : config.vocab_size * config.hidden_size;
  return static_cast<double>(count.active - count.backbone) /
         static_cast<double>(count.active - looked_up);
}

// Seconds of `rows` for one more token: the backbone's work, and of the experts' work and the
// transfer what takes longer.
double RowsSecondsOfToken(const model::ModelConfig& config, const Recipe& recipe, int64_t parties,
                          const Link& link) {
  const double share = ExpertShareOfWork(config);
  const double work = ComputeSeconds(link, 1);
  const double transfer =
      TransferSeconds(link, PredictTraffic(config, recipe, parties).bytes_per_token);
  return (1 - share) * work + std::max(share * work, transfer);
}

}  // namespace

double RowsSeconds(const model::ModelConfig& config, const Recipe& recipe, int64_t parties,
                   const Link& link, double tokens) {
  if (parties == 1) return ComputeSeconds(link, tokens);
  return tokens * RowsSecondsOfToken(config, recipe, parties, link) +
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
  constexpr double kNever = std::numeric_limits<double>::infinity();
  if (parties == 1) return kNever;
  const double a_token = RowsSecondsOfToken(config, recipe, parties, link);
  const double fixed = (kWeightsWaits - RowsWaits(config)) * link.round_trip / 2;
  const double transfer = TransferSeconds(link, plan.BusiestStep());
  // What `rows` takes more never falls with the tokens. First, where the transfer of `weights` is
  // what takes long; then, where its work is.
  const double hidden = std::max(0.0, (transfer + fixed) / a_token);
  if (ComputeSeconds(link, hidden) <= transfer) return hidden;
  const double more = a_token - ComputeSeconds(link, 1);
  return more > 0 ? fixed / more : kNever;
}

}  // namespace pcmoe::plan
