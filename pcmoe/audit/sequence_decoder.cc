// pcmoe/audit/sequence_decoder.cc: see sequence_decoder.h.
#include "pcmoe/audit/sequence_decoder.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "pcmoe/audit/adam.h"

namespace pcmoe::audit {
namespace {

constexpr double kWarmupShare = 0.1;

// bfloat16 products, as in token_decoder.cc.
at::Tensor Product(const at::Tensor& x, const at::Tensor& weight) {
  return at::linear(x.to(at::kBFloat16), weight.to(at::kBFloat16)).to(at::kFloat);
}

at::Tensor Normed(const at::Tensor& x) { return at::layer_norm(x, {x.size(-1)}); }

// Sets of `size` indices, int64 [sets, size]: every group shuffled and cut; the last set of a group
// is filled up with members that have been.
at::Tensor CutIntoSets(const std::vector<int64_t>& group_n, int64_t size, std::mt19937_64& random) {
  std::vector<int64_t> all;
  for (size_t first = 0; first < group_n.size();) {
    size_t end = first;
    while (end < group_n.size() && group_n[end] == group_n[first]) ++end;
    std::vector<int64_t> members(end - first);
    for (size_t i = 0; i < members.size(); ++i) members[i] = static_cast<int64_t>(first + i);
    std::shuffle(members.begin(), members.end(), random);
    const auto step = static_cast<size_t>(size);
    const size_t padded = (members.size() + step - 1) / step * step;
    for (size_t i = 0; i < padded; ++i) all.push_back(members[i % members.size()]);
    first = end;
  }
  at::Tensor sets = at::empty({static_cast<int64_t>(all.size()) / size, size}, at::kLong);
  std::copy(all.begin(), all.end(), sets.mutable_data_ptr<int64_t>());
  return sets;
}

// The rows of some sets, [B, S, L*(D+1)].
at::Tensor RowsOfSets(const at::Tensor& rows_nlw, const at::Tensor& sets_bs) {
  return rows_nlw.flatten(1)
      .index_select(0, sets_bs.flatten())
      .view({sets_bs.size(0), sets_bs.size(1), -1});
}

}  // namespace

SequenceDecoder::SequenceDecoder(int64_t columns, int64_t vocab,
                                 const SequenceDecoderOptions& options)
    : options_(options) {
  at::Generator random = at::detail::createCPUGenerator(options.seed);
  const auto start = [&](int64_t out, int64_t in, double gain) {
    return at::randn({out, in}, random).mul_(gain / std::sqrt(static_cast<double>(in)));
  };
  const int64_t width = options.width;
  in_ = start(4 * width, columns, std::sqrt(2.0));
  in_bias_ = at::zeros({4 * width});
  embed_ = start(width, 4 * width, 1.0);
  embed_bias_ = at::zeros({width});
  for (int64_t b = 0; b < options.blocks; ++b) {
    blocks_.push_back({.qkv = start(3 * width, width, 1.0),
                       .out = start(width, width, 0.5),
                       .up = start(2 * width, width, std::sqrt(2.0)),
                       .up_bias = at::zeros({2 * width}),
                       .down = start(width, 2 * width, 0.5),
                       .down_bias = at::zeros({width})});
  }
  head_ = start(vocab, width, 0.1);
  head_bias_ = at::zeros({vocab});
}

std::vector<at::Tensor> SequenceDecoder::Weights() const {
  std::vector<at::Tensor> weights = {in_, in_bias_, embed_, embed_bias_, head_, head_bias_};
  for (const Block& block : blocks_) {
    weights.insert(weights.end(),
                   {block.qkv, block.out, block.up, block.up_bias, block.down, block.down_bias});
  }
  return weights;
}

at::Tensor SequenceDecoder::Logits(const at::Tensor& rows_bsx) const {
  const int64_t sets = rows_bsx.size(0);
  const int64_t size = rows_bsx.size(1);
  at::Tensor h = Product(at::relu(Product(rows_bsx, in_) + in_bias_), embed_) + embed_bias_;
  for (const Block& block : blocks_) {
    const std::vector<at::Tensor> qkv =
        Product(Normed(h), block.qkv)
            .view({sets, size, 3, options_.heads, options_.width / options_.heads})
            .permute({2, 0, 3, 1, 4})
            .unbind(0);
    const at::Tensor mixed = at::scaled_dot_product_attention(qkv[0], qkv[1], qkv[2]);
    h = h + Product(mixed.transpose(1, 2).reshape({sets, size, options_.width}), block.out);
    h = h + Product(at::gelu(Product(Normed(h), block.up) + block.up_bias), block.down) +
        block.down_bias;
  }
  return Product(Normed(h), head_) + head_bias_;
}

SequenceDecoder SequenceDecoder::Train(const at::Tensor& rows_nlw, const at::Tensor& token_n,
                                       const std::vector<int64_t>& group_n, int64_t vocab,
                                       const SequenceDecoderOptions& options) {
  SequenceDecoder decoder(rows_nlw.size(1) * rows_nlw.size(2), vocab, options);
  // Before the rows say anything, the guess is the unigram's.
  decoder.head_bias_.copy_((token_n.bincount({}, vocab).to(at::kFloat) + 0.1).log());
  const std::vector<at::Tensor> weights = decoder.Weights();
  for (const at::Tensor& weight : weights) weight.set_requires_grad(true);
  Adam adam(weights);
  std::mt19937_64 order(options.seed);
  at::Generator random = at::detail::createCPUGenerator(options.seed + 1);
  const int64_t sets_an_epoch = CutIntoSets(group_n, options.set_size, order).size(0);
  const int64_t steps_an_epoch = (sets_an_epoch + options.sets_at_once - 1) / options.sets_at_once;
  const auto steps = static_cast<double>(steps_an_epoch * options.epochs);
  int64_t step = 0;
  for (int64_t epoch = 0; epoch < options.epochs; ++epoch) {
    const at::Tensor sets_in_order = CutIntoSets(group_n, options.set_size, order);
    std::vector<int64_t> places(static_cast<size_t>(sets_an_epoch));
    for (size_t i = 0; i < places.size(); ++i) places[i] = static_cast<int64_t>(i);
    std::shuffle(places.begin(), places.end(), order);
    at::Tensor place = at::empty({sets_an_epoch}, at::kLong);
    std::copy(places.begin(), places.end(), place.mutable_data_ptr<int64_t>());
    const at::Tensor sets = sets_in_order.index_select(0, place);
    for (int64_t first = 0; first < sets_an_epoch; first += options.sets_at_once, ++step) {
      const at::Tensor some =
          sets.narrow(0, first, std::min(options.sets_at_once, sets_an_epoch - first));
      const at::Tensor index = some.flatten();
      const at::Tensor rows = rows_nlw.index_select(0, index);
      const at::Tensor kept =
          (at::rand({rows.size(0), rows.size(1), 1}, random) >= options.drop).to(at::kFloat);
      const at::Tensor logits =
          decoder.Logits((rows * kept).view({some.size(0), some.size(1), -1}));
      const at::Tensor loss =
          at::cross_entropy_loss(logits.flatten(0, 1), token_n.index_select(0, index));
      const double done = static_cast<double>(step) / steps;
      const double rate = options.learning_rate * std::min(done / kWarmupShare, 1.0) * (1 - done);
      adam.Step(torch::autograd::grad({loss}, weights), rate);
    }
  }
  for (const at::Tensor& weight : weights) weight.set_requires_grad(false);
  return decoder;
}

at::Tensor SequenceDecoder::Best(const at::Tensor& rows_nlw,
                                 const std::vector<int64_t>& group_n) const {
  const at::NoGradGuard no_grad;
  std::mt19937_64 random(options_.seed);
  const at::Tensor sets = CutIntoSets(group_n, options_.set_size, random);
  at::Tensor best = at::zeros({rows_nlw.size(0)}, at::kLong);
  for (int64_t first = 0; first < sets.size(0); first += options_.sets_at_once) {
    const at::Tensor some =
        sets.narrow(0, first, std::min(options_.sets_at_once, sets.size(0) - first));
    const at::Tensor guess = at::argmax(Logits(RowsOfSets(rows_nlw, some)), -1);
    best.index_copy_(0, some.flatten(), guess.flatten());
  }
  return best;
}

}  // namespace pcmoe::audit
