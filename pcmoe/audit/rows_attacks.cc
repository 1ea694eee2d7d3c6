// pcmoe/audit/rows_attacks.cc: see rows_attacks.h.
#include "pcmoe/audit/rows_attacks.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randperm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/topk.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

namespace pcmoe::audit {
namespace {

constexpr int64_t kRowsAtOnce = 4096;
constexpr int64_t kShadowGroup = 1024;  // public tokens that are mixed, as a micro-batch's are

at::Tensor UnitRows(const at::Tensor& rows_rd) {
  return rows_rd / (rows_rd.norm(2, 1, /*keepdim=*/true) + 1e-20);
}

// Rows and tokens that a layer's decoder learns from.
std::pair<at::Tensor, at::Tensor> TrainingRows(const Shadow& shadow, size_t layer) {
  if (shadow.varied.x_td.empty()) return {shadow.plain.x_td[layer], shadow.plain.tokens_t};
  return {at::cat({shadow.plain.x_td[layer], shadow.varied.x_td[layer]}),
          at::cat({shadow.plain.tokens_t, shadow.varied.tokens_t})};
}

// Cluster of every row of a layer, int64 [R].
std::vector<at::Tensor> ClusterOfRows(const View& view, std::span<const Cluster> clusters) {
  std::vector<at::Tensor> result;
  for (const LayerView& layer : view.layers) {
    result.push_back(at::zeros({static_cast<int64_t>(layer.sources.size())}, at::kLong));
  }
  for (size_t c = 0; c < clusters.size(); ++c) {
    for (const auto& [layer, row] : clusters[c].rows) {
      result[static_cast<size_t>(layer)].mutable_data_ptr<int64_t>()[row] = static_cast<int64_t>(c);
    }
  }
  return result;
}

// Adds log probabilities of rows to their clusters.
void AddToClusters(const TokenDecoder& decoder, const at::Tensor& rows_rd,
                   const at::Tensor& cluster_r, at::Tensor& sum_cv) {
  for (int64_t first = 0; first < rows_rd.size(0); first += kRowsAtOnce) {
    const int64_t count = std::min(kRowsAtOnce, rows_rd.size(0) - first);
    sum_cv.index_add_(0, cluster_r.narrow(0, first, count),
                      decoder.LogProbabilities(rows_rd.narrow(0, first, count)));
  }
}

void PickBest(const at::Tensor& sum_cv, DecodedRows& decoded) {
  decoded.clusters = at::argmax(sum_cv, 1);
  decoded.clusters_top10 =
      std::get<1>(at::topk(sum_cv, std::min<int64_t>(10, sum_cv.size(1)), 1)).contiguous();
}

bool Empty(const LayerView& layer) { return layer.sources.empty(); }

// The first layer that rows came of.
size_t FirstSeen(const View& view) {
  size_t layer = 0;
  while (layer + 1 < view.layers.size() && Empty(view.layers[layer])) ++layer;
  return layer;
}

}  // namespace

DecodedRows DecodeRows(const View& view, std::span<const Cluster> clusters, const Shadow& shadow,
                       int64_t vocab, const DecoderOptions& options) {
  DecodedRows decoded;
  decoded.rows.resize(view.layers.size());
  const std::vector<at::Tensor> cluster_of_row = ClusterOfRows(view, clusters);
  at::Tensor sum_cv = at::zeros({static_cast<int64_t>(clusters.size()), vocab});
  for (size_t l = 0; l < view.layers.size(); ++l) {
    if (Empty(view.layers[l])) continue;
    const auto [rows, tokens] = TrainingRows(shadow, l);
    const TokenDecoder decoder = TokenDecoder::Train(rows, tokens, vocab, options);
    decoded.rows[l] = decoder.Best(view.layers[l].x_rd);
    AddToClusters(decoder, view.layers[l].x_rd, cluster_of_row[l], sum_cv);
  }
  PickBest(sum_cv, decoded);
  return decoded;
}

RowGuesses DecodeRowsControl(const View& view, const Shadow& shadow, int64_t vocab, bool shuffled) {
  RowGuesses guesses(view.layers.size());
  at::Generator random = at::detail::createCPUGenerator(7);
  // Small, on all rows: a large one would learn shuffled rows by heart, and its guesses be noise.
  const DecoderOptions options{.hidden = 64, .epochs = 2, .learning_rate = 1e-3};
  for (size_t l = 0; l < view.layers.size(); ++l) {
    if (Empty(view.layers[l])) continue;
    at::Tensor tokens = shadow.plain.tokens_t;
    if (shuffled) {
      tokens = tokens.index_select(
          0, at::randperm(tokens.size(0), random, at::TensorOptions(at::kLong)));
    }
    guesses[l] =
        TokenDecoder::Train(shadow.plain.x_td[l], tokens, vocab, options).Best(view.layers[l].x_rd);
  }
  return guesses;
}

RowGuesses DecodeByCodebook(const View& view, const Shadow& shadow, int64_t vocab) {
  RowGuesses guesses(view.layers.size());
  for (size_t l = 0; l < view.layers.size(); ++l) {
    if (Empty(view.layers[l])) continue;
    const auto [rows, tokens] = TrainingRows(shadow, l);
    guesses[l] = Codebook(rows, tokens, vocab).Best(view.layers[l].x_rd);
  }
  return guesses;
}

RowGuesses LabelsClosedForm(const View& view, const at::Tensor& head_vd,
                            const at::Tensor& final_norm_d) {
  const at::Tensor minus_dv = (head_vd * final_norm_d).t().neg().contiguous();
  RowGuesses guesses(view.layers.size());
  for (size_t l = 0; l < view.layers.size(); ++l) {
    if (Empty(view.layers[l])) continue;
    guesses[l] = at::argmax(at::mm(view.layers[l].q_rd, minus_dv), 1);
  }
  return guesses;
}

DecodedRows LabelsLearned(const View& view, std::span<const Cluster> clusters, const Shadow& shadow,
                          int64_t vocab, const DecoderOptions& options) {
  DecodedRows decoded;
  decoded.rows.resize(view.layers.size());
  const std::vector<at::Tensor> cluster_of_row = ClusterOfRows(view, clusters);
  at::Tensor sum_cv = at::zeros({static_cast<int64_t>(clusters.size()), vocab});
  const at::Tensor with_loss = (shadow.plain.labels_t >= 0).nonzero().flatten();
  const at::Tensor labels = shadow.plain.labels_t.index_select(0, with_loss);
  for (size_t l = 0; l < view.layers.size(); ++l) {
    if (Empty(view.layers[l])) continue;
    const TokenDecoder decoder = TokenDecoder::Train(
        UnitRows(shadow.plain.q_td[l].index_select(0, with_loss)), labels, vocab, options);
    const at::Tensor rows = UnitRows(view.layers[l].q_rd);
    decoded.rows[l] = decoder.Best(rows);
    AddToClusters(decoder, rows, cluster_of_row[l], sum_cv);
  }
  PickBest(sum_cv, decoded);
  return decoded;
}

at::Tensor DecodeSets(const View& view, std::span<const Cluster> clusters, const Shadow& shadow,
                      int64_t vocab, const SequenceDecoderOptions& options) {
  std::vector<at::Tensor> seen, learn;  // [C, D+1] and [T, D+1] a layer
  const std::vector<at::Tensor> cluster_of_row = ClusterOfRows(view, clusters);
  const auto count = static_cast<int64_t>(clusters.size());
  for (size_t l = 0; l < view.layers.size(); ++l) {
    if (Empty(view.layers[l])) continue;
    const auto [rows, tokens] = TrainingRows(shadow, l);
    const at::Tensor own = (view.layers[l].gate_re.sum(0) > 0).nonzero().flatten();
    at::Tensor gate = shadow.plain.gate_te[l].index_select(1, own).sum(1, true);
    if (!shadow.varied.gate_te.empty()) {
      gate = at::cat({gate, shadow.varied.gate_te[l].index_select(1, own).sum(1, true)});
    }
    const at::Tensor visible = (gate > 0).to(at::kFloat);
    const at::Tensor mean = rows.mean(0);
    const at::Tensor scale = (rows.var(0, /*unbiased=*/false) + 1e-12).rsqrt();
    learn.push_back(at::cat({(rows - mean) * scale * visible, visible}, 1));
    const at::Tensor& x = view.layers[l].x_rd;
    at::Tensor of_cluster = at::zeros({count, x.size(1) + 1});
    of_cluster.index_copy_(0, cluster_of_row[l],
                           at::cat({(x - mean) * scale, at::ones({x.size(0), 1})}, 1));
    seen.push_back(of_cluster);
  }
  if (seen.empty()) return at::zeros({count}, at::kLong);
  const at::Tensor learn_tlw = at::stack(learn, 1);
  // Tokens that the coalition would see nothing of teach nothing, and are in no set.
  const at::Tensor some = learn_tlw.select(2, learn_tlw.size(2) - 1).sum(1).nonzero().flatten();
  std::vector<int64_t> shadow_group, group;
  for (int64_t i = 0; i < some.size(0); ++i) {
    shadow_group.push_back(some.const_data_ptr<int64_t>()[i] / kShadowGroup);
  }
  std::map<std::tuple<int64_t, int, int64_t>, int64_t> batches;
  for (const Cluster& cluster : clusters) {
    const auto [layer, row] = cluster.rows[0];
    const RowSource& source =
        view.layers[static_cast<size_t>(layer)].sources[static_cast<size_t>(row)];
    const auto next = static_cast<int64_t>(batches.size());
    group.push_back(batches.emplace(std::tuple{source.step, source.home, source.micro_batch}, next)
                        .first->second);
  }
  const at::Tensor tokens = TrainingRows(shadow, FirstSeen(view)).second;
  return SequenceDecoder::Train(learn_tlw.index_select(0, some), tokens.index_select(0, some),
                                shadow_group, vocab, options)
      .Best(at::stack(seen, 1), group);
}

at::Tensor DecodeRouting(const View& view, std::span<const Cluster> clusters, const Shadow& shadow,
                         int64_t vocab, bool with_weights) {
  // Columns: (layer, expert) pairs that the coalition was ever asked for.
  std::vector<at::Tensor> seen, learn;
  const std::vector<at::Tensor> cluster_of_row = ClusterOfRows(view, clusters);
  for (size_t l = 0; l < view.layers.size(); ++l) {
    if (Empty(view.layers[l])) continue;
    const at::Tensor& gate = view.layers[l].gate_re;
    const at::Tensor own = (gate.sum(0) > 0).nonzero().flatten();
    at::Tensor of_cluster = at::zeros({static_cast<int64_t>(clusters.size()), own.size(0)});
    of_cluster.index_copy_(0, cluster_of_row[l], gate.index_select(1, own));
    const at::Tensor of_shadow = shadow.plain.gate_te[l].index_select(1, own);
    seen.push_back((of_cluster > 0).to(at::kFloat));
    learn.push_back((of_shadow > 0).to(at::kFloat));
    if (!with_weights) continue;
    seen.push_back(of_cluster);
    learn.push_back(of_shadow);
  }
  const TokenDecoder decoder =
      TokenDecoder::Train(at::cat(learn, 1), shadow.plain.tokens_t, vocab,
                          {.hidden = 512, .epochs = 15, .batch = 512, .learning_rate = 4e-3});
  return decoder.Best(at::cat(seen, 1));
}

at::Tensor DecodeWithKnownPlaintext(const at::Tensor& rows_rd, std::span<const int64_t> known_rows,
                                    const at::Tensor& known_tokens, int64_t vocab) {
  at::Tensor index = at::empty({static_cast<int64_t>(known_rows.size())}, at::kLong);
  std::copy(known_rows.begin(), known_rows.end(), index.mutable_data_ptr<int64_t>());
  // About as many updates whatever is known: few rows are seen often.
  const auto known = static_cast<int64_t>(known_rows.size());
  const DecoderOptions options{
      .epochs = std::clamp<int64_t>(60000 / std::max<int64_t>(known, 1), 4, 40), .batch = 128};
  return TokenDecoder::Train(rows_rd.index_select(0, index), known_tokens, vocab, options)
      .Best(rows_rd);
}

}  // namespace pcmoe::audit
