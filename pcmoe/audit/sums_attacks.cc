// pcmoe/audit/sums_attacks.cc: see sums_attacks.h.
#include "pcmoe/audit/sums_attacks.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/dot.h>
#include <ATen/ops/linalg_eigh.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <cmath>

namespace pcmoe::audit {
namespace {

// Gradients of the owner's experts, one flat tensor each, in the order of the sum's. An expert
// whose sum is zero was held back by everybody (min_rows): it tells nothing and is left out.
using ExpertGradients = std::vector<at::Tensor>;

bool Released(const ReleasedSum::Expert& expert) {
  return expert.down_df.defined() && expert.gate_up_fd.norm().item<double>() > 0;
}

ExpertGradients Flat(const ReleasedSum& sum) {
  ExpertGradients flat;
  for (const ReleasedSum::Expert& expert : sum.experts) {
    if (!Released(expert)) continue;
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
    if (!Released(expert)) continue;
    const auto& layer = gradients[static_cast<size_t>(expert.layer)];
    flat.push_back(
        at::cat({layer.gate_up_efd[expert.id].flatten(), layer.down_edf[expert.id].flatten()}));
  }
  return flat;
}

double Dot(const at::Tensor& a, const at::Tensor& b) { return at::dot(a, b).item<double>(); }

std::vector<double> ToVector(const at::Tensor& values) {
  const at::Tensor doubles = values.to(at::kDouble).contiguous();
  const double* data = doubles.const_data_ptr<double>();
  return {data, data + doubles.numel()};
}

// What public documents have in common, and the sum without it, for one expert.
struct Filter {
  at::Tensor basis_nw;            // orthonormal rows that span the public gradients
  at::Tensor rest_w;              // of the sum
  double centre = 0, spread = 1;  // of public documents' products with it
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

at::Tensor Without(const at::Tensor& basis_nw, const at::Tensor& w) {
  return w - at::mv(basis_nw.t(), at::mv(basis_nw, w));
}

// A document's product with the sum per unit of its own length, and that length.
struct Product {
  double along = 0, length = 0;
};

Product ProductOf(const Filter& filter, const at::Tensor& gradient) {
  const at::Tensor rest = Without(filter.basis_nw, gradient);
  const double length = rest.norm().item<double>();
  return {length > 0 ? Dot(rest, filter.rest_w) / length : 0.0, length};
}

absl::StatusOr<std::vector<Filter>> LearnFilters(const ReleasedSum& sum, BaseModel& model,
                                                 std::span<const data::Sequence> shadow) {
  // Two thirds say what is public, the rest what a document that was not used scores.
  const size_t span_documents = shadow.size() * 2 / 3;
  std::vector<std::vector<at::Tensor>> gradients;  // [expert][document]
  const ExpertGradients total = Flat(sum);
  gradients.resize(total.size());
  for (const data::Sequence& document : shadow) {
    PCMOE_ASSIGN_OR_RETURN(const ExpertGradients one, GradientOf(sum, model, document));
    for (size_t e = 0; e < one.size(); ++e) gradients[e].push_back(one[e]);
  }
  std::vector<Filter> filters(total.size());
  for (size_t e = 0; e < total.size(); ++e) {
    const auto middle = gradients[e].begin() + static_cast<std::ptrdiff_t>(span_documents);
    Filter& filter = filters[e];
    filter.basis_nw = Span(at::stack(std::vector<at::Tensor>(gradients[e].begin(), middle)));
    filter.rest_w = Without(filter.basis_nw, total[e]);
    double first = 0;
    double second = 0;
    double count = 0;
    for (auto document = middle; document != gradients[e].end(); ++document) {
      const Product product = ProductOf(filter, *document);
      if (product.length == 0) continue;  // the expert was not used
      first += product.along;
      second += product.along * product.along;
      ++count;
    }
    filter.centre = count > 0 ? first / count : 0;
    filter.spread =
        count > 1 ? std::sqrt(std::max(second / count - filter.centre * filter.centre, 0.0)) : 0;
  }
  return filters;
}

}  // namespace

absl::StatusOr<std::vector<double>> ScoreByAlignment(const ReleasedSum& sum, double gradient_scale,
                                                     BaseModel& model,
                                                     std::span<const data::Sequence> shadow,
                                                     std::span<const data::Sequence> candidates) {
  PCMOE_ASSIGN_OR_RETURN(const std::vector<Filter> filters, LearnFilters(sum, model, shadow));
  std::vector<double> result;
  for (const data::Sequence& document : candidates) {
    PCMOE_ASSIGN_OR_RETURN(const ExpertGradients one, GradientOf(sum, model, document));
    double score = 0;  // log likelihood ratio of "in the sum" against "not", expert by expert
    for (size_t e = 0; e < one.size(); ++e) {
      const Filter& filter = filters[e];
      const Product product = ProductOf(filter, one[e]);
      if (filter.spread <= 0 || product.length == 0) continue;
      const double shift = product.length * gradient_scale / filter.spread;
      score += shift * (product.along - filter.centre) / filter.spread - 0.5 * shift * shift;
    }
    result.push_back(score);
  }
  return result;
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
