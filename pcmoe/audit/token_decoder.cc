// pcmoe/audit/token_decoder.cc: see token_decoder.h.
#include "pcmoe/audit/token_decoder.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/_softmax.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/randperm.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

#include "pcmoe/audit/adam.h"

namespace pcmoe::audit {
namespace {

constexpr int64_t kRowsAtOnce = 4096;

// bfloat16 products: several times as fast on the processors that have them, and exact enough.
at::Tensor Product(const at::Tensor& a, const at::Tensor& b) {
  return at::mm(a.to(at::kBFloat16), b.to(at::kBFloat16)).to(at::kFloat);
}

}  // namespace

TokenDecoder TokenDecoder::Train(const at::Tensor& rows_rd, const at::Tensor& token_r,
                                 int64_t vocab, const DecoderOptions& options) {
  const int64_t rows = rows_rd.size(0);
  const int64_t width = rows_rd.size(1);
  const int64_t hidden = options.hidden > 0 ? options.hidden : std::max<int64_t>(256, 4 * width);
  at::Generator random = at::detail::createCPUGenerator(options.seed);
  TokenDecoder decoder;
  decoder.mean_d_ = rows_rd.mean(0);
  decoder.scale_d_ = (rows_rd.var(0, /*unbiased=*/false) + 1e-12).rsqrt();
  const auto start = [&](int64_t out, int64_t in) {
    return at::randn({out, in}, random).mul_(1 / std::sqrt(static_cast<double>(in)));
  };
  decoder.w1_hd_ = start(hidden, width).mul_(std::sqrt(2.0));
  decoder.b1_h_ = at::zeros({hidden});
  // Before the rows say anything, the guess is the unigram's.
  decoder.w2_vh_ = start(vocab, hidden).mul_(0.1);
  decoder.b2_v_ = (token_r.bincount({}, vocab).to(at::kFloat) + 0.1).log_();
  Adam adam({decoder.w1_hd_, decoder.b1_h_, decoder.w2_vh_, decoder.b2_v_});
  const int64_t steps_an_epoch = (rows + options.batch - 1) / options.batch;
  const auto steps = static_cast<double>(steps_an_epoch * options.epochs);
  int64_t step = 0;
  for (int64_t epoch = 0; epoch < options.epochs; ++epoch) {
    const at::Tensor order = at::randperm(rows, random, at::TensorOptions(at::kLong));
    for (int64_t first = 0; first < rows; first += options.batch, ++step) {
      const at::Tensor index = order.narrow(0, first, std::min(options.batch, rows - first));
      const at::Tensor x = (rows_rd.index_select(0, index) - decoder.mean_d_) * decoder.scale_d_;
      const at::Tensor token = token_r.index_select(0, index);
      const at::Tensor a = at::relu(Product(x, decoder.w1_hd_.t()).add_(decoder.b1_h_));
      at::Tensor d = at::_softmax(Product(a, decoder.w2_vh_.t()).add_(decoder.b2_v_), 1, false);
      const at::Tensor ones = at::zeros({token.size(0), 1}).fill_(-1.0);
      d.scatter_add_(1, token.unsqueeze(1), ones).div_(static_cast<double>(token.size(0)));
      const at::Tensor da = Product(d, decoder.w2_vh_).mul_(a > 0);
      const double rate = options.learning_rate * (1 - static_cast<double>(step) / steps);
      adam.Step({Product(da.t(), x), da.sum(0), Product(d.t(), a), d.sum(0)}, rate);
    }
  }
  return decoder;
}

at::Tensor TokenDecoder::Hidden(const at::Tensor& rows_rd) const {
  return at::relu(Product((rows_rd - mean_d_) * scale_d_, w1_hd_.t()).add_(b1_h_));
}

at::Tensor TokenDecoder::LogProbabilities(const at::Tensor& rows_rd) const {
  return at::log_softmax(Product(Hidden(rows_rd), w2_vh_.t()).add_(b2_v_), 1);
}

at::Tensor TokenDecoder::Best(const at::Tensor& rows_rd) const {
  std::vector<at::Tensor> best;
  for (int64_t first = 0; first < rows_rd.size(0); first += kRowsAtOnce) {
    const at::Tensor some =
        rows_rd.narrow(0, first, std::min(kRowsAtOnce, rows_rd.size(0) - first));
    best.push_back(at::argmax(Product(Hidden(some), w2_vh_.t()).add_(b2_v_), 1));
  }
  return best.empty() ? at::zeros({0}, at::kLong) : at::cat(best);
}

Codebook::Codebook(const at::Tensor& rows_rd, const at::Tensor& token_r, int64_t vocab)
    : mean_d_(rows_rd.mean(0)) {
  const at::Tensor centred = rows_rd - mean_d_;
  at::Tensor sum = at::zeros({vocab, rows_rd.size(1)});
  sum.index_add_(0, token_r, centred);
  code_vd_ = sum / (sum.norm(2, 1, /*keepdim=*/true) + 1e-12);
}

at::Tensor Codebook::Best(const at::Tensor& rows_rd) const {
  // The row's own norm does not change the argmax.
  return at::argmax(Product(rows_rd - mean_d_, code_vd_.t()), 1);
}

}  // namespace pcmoe::audit
