// pcmoe/audit/known_plaintext.cc: see known_plaintext.h.
#include "pcmoe/audit/known_plaintext.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <random>
#include <set>

#include "absl/strings/str_format.h"
#include "pcmoe/audit/rows_attacks.h"

namespace pcmoe::audit {
namespace {

constexpr int64_t kKnown[] = {1000, 5000, 20000};
constexpr int64_t kToTest = 1000;  // rows besides the known ones, at least

// Steps spread over the run that give enough rows of both layers, as far as there are.
std::set<int64_t> StepsFor(const View& view, const std::set<int64_t>& layers,
                           const std::vector<int64_t>& steps) {
  double fewest = 1e18;  // rows of a layer
  for (const int64_t layer : layers) {
    const size_t rows = view.layers[static_cast<size_t>(layer)].sources.size();
    if (rows > 0) fewest = std::min(fewest, static_cast<double>(rows));
  }
  const double a_step = fewest / static_cast<double>(view.steps.size());
  const double wanted = static_cast<double>(kKnown[2] + 2 * kToTest) / a_step;
  const size_t count = std::clamp<size_t>(static_cast<size_t>(wanted) + 1,
                                          std::min(view.steps.size(), steps.size()), steps.size());
  std::set<int64_t> chosen;
  for (size_t i = 0; i < count; ++i) chosen.insert(steps[i * steps.size() / count]);
  return chosen;
}

// Accuracy on the other rows of a layer, when some random ones are known.
Estimate WithKnown(const at::Tensor& rows_rd, const std::vector<int64_t>& token_of_row,
                   std::vector<int64_t> with_truth, int64_t known, const PrivateTokens& tokens,
                   int64_t vocab, std::mt19937_64& random) {
  std::shuffle(with_truth.begin(), with_truth.end(), random);
  with_truth.resize(static_cast<size_t>(known));
  at::Tensor pairs = at::empty({known}, at::kLong);
  int64_t* pair = pairs.mutable_data_ptr<int64_t>();
  std::vector<int64_t> others = token_of_row;
  for (const int64_t row : with_truth) {
    int64_t& token = others[static_cast<size_t>(row)];
    *pair++ = tokens.token_n()[static_cast<size_t>(token)];
    token = -1;  // not scored
  }
  return tokens.Accuracy(others, DecodeWithKnownPlaintext(rows_rd, with_truth, pairs, vocab),
                         tokens.token_n());
}

}  // namespace

absl::StatusOr<std::vector<Finding>> AttackWithKnownPlaintext(
    const AuditInput& input, const View& view, const std::vector<int64_t>& steps,
    const std::vector<std::pair<std::string, double>>& baselines,
    std::vector<std::string>& warnings) {
  const auto count = static_cast<int64_t>(view.layers.size());
  const std::set<int64_t> layers = {0, count / 2};
  const std::set<int64_t> chosen = StepsFor(view, layers, steps);
  PCMOE_ASSIGN_OR_RETURN(const View wide,
                         MakeView(input.coalition, input.base.config(), chosen, layers));
  const PrivateTokens tokens(input.truths, wide.steps);
  const std::vector<std::vector<int64_t>> token_of_row = tokens.TokensOfRows(wide);
  std::mt19937_64 random(input.seed);
  std::vector<Finding> findings;
  for (const int64_t known : kKnown) {
    Finding finding{.id = absl::StrCat("known_plaintext_", known),
                    .title = absl::StrFormat("%d known tokens, no base model", known),
                    .target = Target::kTokens,
                    .metric = "top-1 of other rows seen",
                    .baselines = baselines};
    for (const int64_t layer : layers) {
      const auto l = static_cast<size_t>(layer);
      std::vector<int64_t> with_truth;
      for (size_t r = 0; r < token_of_row[l].size(); ++r) {
        if (token_of_row[l][r] >= 0) with_truth.push_back(static_cast<int64_t>(r));
      }
      if (static_cast<int64_t>(with_truth.size()) < known + kToTest) {
        if (with_truth.empty()) continue;  // no rows of this layer at all
        warnings.push_back(absl::StrFormat(
            "%d known tokens were not tried at layer %d: %d of the %d steps recorded gave %d rows, "
            "and %d others are needed to test on",
            known, layer, chosen.size(), steps.size(), with_truth.size(), kToTest));
        continue;
      }
      const Estimate one = WithKnown(wide.layers[l].x_rd, token_of_row[l], with_truth, known,
                                     tokens, input.base.config().vocab_size, random);
      finding.more.emplace_back(absl::StrCat("layer ", layer), one.value);
      if (one.value > finding.estimate.value) finding.estimate = one;
    }
    if (finding.more.empty()) continue;
    finding.note = absl::StrFormat("rows of %d steps", chosen.size());
    findings.push_back(std::move(finding));
  }
  return findings;
}

}  // namespace pcmoe::audit
