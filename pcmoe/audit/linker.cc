// pcmoe/audit/linker.cc: see linker.h.
#include "pcmoe/audit/linker.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/linalg_solve.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <map>
#include <tuple>

namespace pcmoe::audit {
namespace {

constexpr int64_t kMapTokens = 20000;      // to learn a map from
constexpr int64_t kThresholdTokens = 512;  // a batch to learn the least score from

at::Tensor UnitRows(const at::Tensor& rows_rd) {
  return rows_rd / (rows_rd.norm(2, 1, /*keepdim=*/true) + 1e-20);
}

at::Tensor Select(const at::Tensor& rows_rd, const std::vector<int64_t>& index) {
  const at::Tensor places = at::from_blob(const_cast<int64_t*>(index.data()),
                                          {static_cast<int64_t>(index.size())}, at::kLong);
  return rows_rd.index_select(0, places);
}

struct Candidate {
  float score;
  int32_t chain, row;
};

// The best pairs first; each chain and each row at most once.
void Assign(std::vector<Candidate>& candidates, std::vector<int64_t>& chain_of_row) {
  std::sort(candidates.begin(), candidates.end(),
            [](const Candidate& a, const Candidate& b) { return a.score > b.score; });
  std::vector<bool> used;
  for (const Candidate& candidate : candidates) {
    const auto chain = static_cast<size_t>(candidate.chain);
    const auto row = static_cast<size_t>(candidate.row);
    if (used.size() <= chain) used.resize(chain + 1);
    if (used[chain] || chain_of_row[row] >= 0) continue;
    used[chain] = true;
    chain_of_row[row] = candidate.chain;
  }
}

}  // namespace

Linker::Linker(const Capture& shadow)
    : layers_(shadow.x_td.size()), pairs_(layers_, std::vector<Pair>(layers_)) {
  for (size_t from = 0; from < layers_; ++from) {
    for (size_t to = from + 1; to < layers_ && to - from <= kMaxGap; ++to) Learn(shadow, from, to);
  }
}

void Linker::Learn(const Capture& shadow, size_t from, size_t to) {
  if (!shadow.x_td[from].defined() || !shadow.x_td[to].defined()) return;
  Pair& pair = pairs_[from][to];
  const int64_t tokens = std::min(kMapTokens, shadow.x_td[from].size(0));
  const at::Tensor x = shadow.x_td[from].narrow(0, 0, tokens);
  const at::Tensor y = shadow.x_td[to].narrow(0, 0, tokens);
  pair.from_mean_d = x.mean(0);
  pair.to_mean_d = y.mean(0);
  const at::Tensor xc = x - pair.from_mean_d;
  at::Tensor gram = at::mm(xc.t(), xc);
  const double ridge = 1e-3 * gram.diagonal().mean().item<double>();
  gram = gram + at::eye(gram.size(0)) * ridge;
  pair.map_dd = at::linalg_solve(gram, at::mm(xc.t(), y - pair.to_mean_d));
  pair.usable = true;

  const int64_t some = std::min(kThresholdTokens, tokens);
  const at::Tensor q_from =
      shadow.q_td.empty() ? at::Tensor() : shadow.q_td[from].narrow(0, 0, some);
  const at::Tensor q_to = shadow.q_td.empty() ? at::Tensor() : shadow.q_td[to].narrow(0, 0, some);
  at::Tensor scores = Scores(pair, x.narrow(0, 0, some), q_from, y.narrow(0, 0, some), q_to);
  const double right = scores.diagonal().mean().item<double>();
  scores.diagonal().fill_(-2.0);
  const double wrong = scores.amax(1).mean().item<double>();
  pair.least_score = 0.5 * (right + std::min(wrong, right));
}

at::Tensor Linker::Scores(const Pair& pair, const at::Tensor& x_from, const at::Tensor& q_from,
                          const at::Tensor& x_to, const at::Tensor& q_to) const {
  const at::Tensor predicted = UnitRows(at::mm(x_from - pair.from_mean_d, pair.map_dd));
  at::Tensor scores = at::mm(predicted, UnitRows(x_to - pair.to_mean_d).t());
  if (q_from.defined() && q_to.defined()) {
    scores = scores + at::mm(UnitRows(q_from), UnitRows(q_to).t());
  }
  return scores;
}

std::vector<Cluster> Linker::Link(const View& view) const {
  using BatchKey = std::tuple<int64_t, int, int64_t>;  // step, home, micro-batch
  std::map<BatchKey, std::vector<std::vector<int64_t>>> batches;
  for (size_t l = 0; l < view.layers.size(); ++l) {
    for (size_t r = 0; r < view.layers[l].sources.size(); ++r) {
      const RowSource& source = view.layers[l].sources[r];
      auto& rows = batches[{source.step, source.home, source.micro_batch}];
      rows.resize(view.layers.size());
      rows[l].push_back(static_cast<int64_t>(r));
    }
  }
  std::vector<Cluster> clusters;
  for (const auto& [key, rows_l] : batches) {
    std::vector<Cluster> chains;
    for (size_t to = 0; to < rows_l.size(); ++to) {
      if (rows_l[to].empty()) continue;
      const at::Tensor x_to = Select(view.layers[to].x_rd, rows_l[to]);
      const at::Tensor q_to = Select(view.layers[to].q_rd, rows_l[to]);
      std::vector<Candidate> candidates;
      for (size_t from = 0; from < to; ++from) {
        const Pair& pair = pairs_[from][to];
        if (!pair.usable) continue;
        std::vector<int64_t> rows, chain;  // of chains whose last row is in layer `from`
        for (size_t c = 0; c < chains.size(); ++c) {
          if (chains[c].rows.back().first != static_cast<int64_t>(from)) continue;
          rows.push_back(chains[c].rows.back().second);
          chain.push_back(static_cast<int64_t>(c));
        }
        if (rows.empty()) continue;
        const at::Tensor scores = Scores(pair, Select(view.layers[from].x_rd, rows),
                                         Select(view.layers[from].q_rd, rows), x_to, q_to)
                                      .contiguous();
        const float* score = scores.const_data_ptr<float>();
        const int64_t columns = scores.size(1);
        for (int64_t i = 0; i < scores.size(0); ++i) {
          for (int64_t j = 0; j < columns; ++j) {
            const float one = score[i * columns + j];
            if (one < pair.least_score) continue;
            // Distances of layers differ in what is a good score.
            candidates.push_back({one - static_cast<float>(pair.least_score),
                                  static_cast<int32_t>(chain[static_cast<size_t>(i)]),
                                  static_cast<int32_t>(j)});
          }
        }
      }
      std::vector<int64_t> chain_of_row(rows_l[to].size(), -1);
      Assign(candidates, chain_of_row);
      for (size_t j = 0; j < rows_l[to].size(); ++j) {
        if (chain_of_row[j] < 0) {
          chain_of_row[j] = static_cast<int64_t>(chains.size());
          chains.emplace_back();
        }
        chains[static_cast<size_t>(chain_of_row[j])].rows.emplace_back(static_cast<int64_t>(to),
                                                                       rows_l[to][j]);
      }
    }
    clusters.insert(clusters.end(), chains.begin(), chains.end());
  }
  return clusters;
}

}  // namespace pcmoe::audit
