// pcmoe/audit/sums_attacks.cc: see sums_attacks.h.
#include "pcmoe/audit/sums_attacks.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linalg_eigh.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

namespace pcmoe::audit {
namespace {

constexpr size_t kDocumentsAtOnce = 16;

// Gradients of the owner's experts, one flat tensor each, in the order of the sum's.
using ExpertGradients = std::vector<at::Tensor>;

// An expert whose sum is zero was held back by everybody (min_rows): it tells nothing.
bool Released(const ReleasedSum::Expert& expert) {
  return expert.down_df.defined() && expert.gate_up_fd.norm().item<double>() > 0;
}

bool Whole(const ReleasedSum::Expert& expert) { return expert.down_df.defined(); }

ExpertGradients Flat(const ReleasedSum& sum) {
  ExpertGradients flat;
  for (const ReleasedSum::Expert& expert : sum.experts) {
    if (!Whole(expert)) continue;
    flat.push_back(at::cat({expert.gate_up_fd.flatten(), expert.down_df.flatten()}));
  }
  return flat;
}

// The same experts' gradients of one document.
absl::StatusOr<ExpertGradients> GradientOf(const ReleasedSum& sum, BaseModel& model,
                                           const data::Sequence& document) {
  PCMOE_RETURN_IF_ERROR(model.Gradients({&document, 1}));
  const model::ExpertParameters& gradients = model.shard().gradients();
  ExpertGradients flat;
  for (const ReleasedSum::Expert& expert : sum.experts) {
    if (!Whole(expert)) continue;
    const auto& layer = gradients[static_cast<size_t>(expert.layer)];
    flat.push_back(
        at::cat({layer.gate_up_efd[expert.id].flatten(), layer.down_edf[expert.id].flatten()}));
  }
  return flat;
}

std::vector<double> ToVector(const at::Tensor& values) {
  const at::Tensor doubles = values.to(at::kDouble).contiguous();
  const double* data = doubles.const_data_ptr<double>();
  return {data, data + doubles.numel()};
}

// What public documents have in common, and the sums without it, for one expert.
struct Filter {
  at::Tensor basis_nw;                 // orthonormal rows that span the public gradients
  at::Tensor rest_sw;                  // of the S sums
  std::vector<double> centre, spread;  // of public documents' products with each; 0: of no use
};

// Orthonormal rows spanning those of `rows_nw`, by the eigenvectors of their small Gram matrix.
at::Tensor Span(const at::Tensor& rows_nw) {
  const auto [values, vectors] = at::linalg_eigh(at::mm(rows_nw, rows_nw.t()).to(at::kDouble));
  const at::Tensor kept =
      (values > values.max() * 1e-6).logical_and(values > 0).nonzero().flatten();
  const at::Tensor scaled =
      vectors.index_select(1, kept) / values.index_select(0, kept).sqrt().unsqueeze(0);
  return at::mm(scaled.t().to(at::kFloat), rows_nw);
}

at::Tensor Without(const at::Tensor& basis_nw, const at::Tensor& rows_rw) {
  return rows_rw - at::mm(at::mm(rows_rw, basis_nw.t()), basis_nw);
}

// Documents' products with the sums per unit of their own lengths outside the span, and those
// lengths; 0 where the expert was not used. What is left of a sum is orthogonal to the span, so a
// document need not be freed of it.
struct Products {
  at::Tensor along_rs, length_r;  // double
};

Products ProductsOf(const Filter& filter, const at::Tensor& gradients_rw) {
  const at::Tensor within_rn = at::mm(gradients_rw, filter.basis_nw.t());
  const at::Tensor square_r = gradients_rw.square().sum(1) - within_rn.square().sum(1);
  Products products{.length_r = square_r.clamp_min(0).sqrt().to(at::kDouble)};
  products.along_rs = at::mm(gradients_rw, filter.rest_sw.t()).to(at::kDouble) /
                      (products.length_r.unsqueeze(1) + 1e-300);
  return products;
}

// Centre and spread of what documents that were not used get.
void Calibrate(Filter& filter, const at::Tensor& gradients_rw) {
  const Products products = ProductsOf(filter, gradients_rw);
  const at::Tensor used = (products.length_r > 0).nonzero().flatten();
  const int64_t sums = filter.rest_sw.size(0);
  if (used.size(0) < 2) {
    filter.centre.assign(static_cast<size_t>(sums), 0);
    filter.spread.assign(static_cast<size_t>(sums), 0);
    return;
  }
  const at::Tensor along = products.along_rs.index_select(0, used);
  filter.centre = ToVector(along.mean(0));
  filter.spread = ToVector(along.var(0, /*unbiased=*/false).sqrt());
}

absl::StatusOr<std::vector<Filter>> LearnFilters(std::span<const ScaledSum> sums, BaseModel& model,
                                                 std::span<const data::Sequence> shadow) {
  // Two thirds say what is public, the rest what a document that was not used scores.
  const size_t span_documents = shadow.size() * 2 / 3;
  std::vector<ExpertGradients> totals;             // [sum][expert]
  std::vector<std::vector<at::Tensor>> gradients;  // [expert][document]
  for (const ScaledSum& sum : sums) totals.push_back(Flat(*sum.sum));
  gradients.resize(totals[0].size());
  for (const data::Sequence& document : shadow) {
    PCMOE_ASSIGN_OR_RETURN(const ExpertGradients one, GradientOf(*sums[0].sum, model, document));
    for (size_t e = 0; e < one.size(); ++e) gradients[e].push_back(one[e]);
  }
  std::vector<Filter> filters(gradients.size());
  for (size_t e = 0; e < filters.size(); ++e) {
    const auto middle = gradients[e].begin() + static_cast<std::ptrdiff_t>(span_documents);
    Filter& filter = filters[e];
    filter.basis_nw = Span(at::stack(std::vector<at::Tensor>(gradients[e].begin(), middle)));
    std::vector<at::Tensor> of_expert;
    for (const ExpertGradients& total : totals) of_expert.push_back(total[e]);
    filter.rest_sw = Without(filter.basis_nw, at::stack(of_expert));
    Calibrate(filter, at::stack(std::vector<at::Tensor>(middle, gradients[e].end())));
    gradients[e].clear();
  }
  return filters;
}

// Of "in the sum" against "not", experts added up; double [S, R].
at::Tensor LogLikelihoodRatios(std::span<const ScaledSum> sums, const std::vector<Filter>& filters,
                               const std::vector<std::vector<at::Tensor>>& gradients) {
  at::Tensor score_sr = at::zeros(
      {static_cast<int64_t>(sums.size()), static_cast<int64_t>(gradients[0].size())}, at::kDouble);
  for (size_t e = 0; e < filters.size(); ++e) {
    const Filter& filter = filters[e];
    const Products products = ProductsOf(filter, at::stack(gradients[e]));
    const at::Tensor used_r = products.length_r > 0;
    for (size_t s = 0; s < sums.size(); ++s) {
      if (filter.spread[s] <= 0) continue;
      const auto row = static_cast<int64_t>(s);
      const at::Tensor shift = products.length_r * (sums[s].gradient_scale / filter.spread[s]);
      const at::Tensor off =
          (products.along_rs.select(1, row) - filter.centre[s]) / filter.spread[s];
      score_sr[row].add_((shift * off - 0.5 * shift * shift) * used_r);
    }
  }
  return score_sr;
}

}  // namespace

absl::StatusOr<std::vector<std::vector<double>>> ScoreByAlignment(
    std::span<const ScaledSum> sums, BaseModel& model, std::span<const data::Sequence> shadow,
    std::span<const data::Sequence> candidates) {
  PCMOE_ASSIGN_OR_RETURN(const std::vector<Filter> filters, LearnFilters(sums, model, shadow));
  std::vector<std::vector<double>> result(sums.size());
  for (size_t first = 0; first < candidates.size(); first += kDocumentsAtOnce) {
    const auto some =
        candidates.subspan(first, std::min(kDocumentsAtOnce, candidates.size() - first));
    std::vector<std::vector<at::Tensor>> gradients(filters.size());  // [expert][document]
    for (const data::Sequence& document : some) {
      PCMOE_ASSIGN_OR_RETURN(const ExpertGradients one, GradientOf(*sums[0].sum, model, document));
      for (size_t e = 0; e < one.size(); ++e) gradients[e].push_back(one[e]);
    }
    const at::Tensor score_sr = LogLikelihoodRatios(sums, filters, gradients);
    for (size_t s = 0; s < sums.size(); ++s) {
      const std::vector<double> of_sum = ToVector(score_sr[static_cast<int64_t>(s)]);
      result[s].insert(result[s].end(), of_sum.begin(), of_sum.end());
    }
  }
  return result;
}

ReleasedSum Added(const ReleasedSum& a, const ReleasedSum& b) {
  ReleasedSum sum = a;
  for (size_t e = 0; e < sum.experts.size(); ++e) {
    ReleasedSum::Expert& expert = sum.experts[e];
    expert.gate_up_fd = expert.gate_up_fd + b.experts[e].gate_up_fd;
    if (Whole(expert)) expert.down_df = expert.down_df + b.experts[e].down_df;
  }
  if (sum.embedding_vd.defined()) sum.embedding_vd = sum.embedding_vd + b.embedding_vd;
  sum.loss_tokens += b.loss_tokens;
  return sum;
}

View RowsOfSums(std::span<const ReleasedSum> sums, const Capture& usual) {
  View view{.steps = {sums[0].step}, .layers = std::vector<LayerView>(usual.x_td.size())};
  for (size_t l = 0; l < view.layers.size(); ++l) {
    std::vector<at::Tensor> rows, gates;
    for (const ReleasedSum& sum : sums) {
      for (const ReleasedSum::Expert& expert : sum.experts) {
        if (expert.layer != static_cast<int64_t>(l) || !Released(expert)) continue;
        rows.push_back(at::cat({expert.gate_up_fd, -expert.gate_up_fd}));
        gates.push_back(at::zeros({rows.back().size(0), usual.gate_te[l].size(1)}));
        gates.back().select(1, expert.id).fill_(1);
      }
    }
    if (rows.empty()) continue;
    LayerView& layer = view.layers[l];
    layer.x_rd = at::cat(rows);
    layer.x_rd = layer.x_rd * (usual.x_td[l].norm(2, 1).mean() /
                               (layer.x_rd.norm(2, 1, /*keepdim=*/true) + 1e-20));
    layer.gate_re = at::cat(gates);
    layer.sources.assign(static_cast<size_t>(layer.x_rd.size(0)), {.step = sums[0].step});
  }
  return view;
}

std::vector<double> ScoreWordsBySpan(const ReleasedSum& sum, int64_t layer,
                                     const at::Tensor& usual_vd) {
  const at::Tensor unit = usual_vd / (usual_vd.norm(2, 1, /*keepdim=*/true) + 1e-20);
  at::Tensor least;
  for (const ReleasedSum::Expert& expert : sum.experts) {
    if (expert.layer != layer || !Released(expert)) continue;
    const auto [u, s, vt] = at::linalg_svd(expert.gate_up_fd, /*full_matrices=*/false);
    const int64_t rank = (s > s[0] * 1e-5).sum().item<int64_t>();
    const at::Tensor basis = vt.narrow(0, 0, rank);
    const at::Tensor outside = (unit - at::mm(at::mm(unit, basis.t()), basis)).norm(2, 1);
    least = least.defined() ? at::minimum(least, outside) : outside;
  }
  // Rounding is no evidence.
  return least.defined() ? ToVector((least * 1e4).round().neg()) : std::vector<double>{};
}

std::vector<double> ScoreWordsByProjection(const ReleasedSum& sum, int64_t layer,
                                           const at::Tensor& usual_vd) {
  const at::Tensor unit = usual_vd / (usual_vd.norm(2, 1, /*keepdim=*/true) + 1e-20);
  at::Tensor most;
  for (const ReleasedSum::Expert& expert : sum.experts) {
    if (expert.layer != layer || !Released(expert)) continue;
    const auto [u, s, vt] = at::linalg_svd(expert.gate_up_fd, /*full_matrices=*/false);
    // Directions that every token has are scaled down: the inverse of the sum's own spectrum.
    const at::Tensor whitened = at::mm(unit, vt.t()) / (s + s[0] * 1e-2);
    const at::Tensor filter = whitened / (whitened.norm(2, 1, /*keepdim=*/true) + 1e-20);
    const at::Tensor along = (filter * s).norm(2, 1);
    most = most.defined() ? at::maximum(most, along) : along;
  }
  return most.defined() ? ToVector(most) : std::vector<double>{};
}

std::vector<double> ScoreWordsByEmbedding(const ReleasedSum& sum) {
  if (!sum.embedding_vd.defined()) return {};
  return ToVector(sum.embedding_vd.norm(2, 1));
}

}  // namespace pcmoe::audit
