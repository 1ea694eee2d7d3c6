// pcmoe/audit/membership.cc: see membership.h.
#include "pcmoe/audit/membership.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <map>
#include <set>

#include "pcmoe/audit/token_decoder.h"

namespace pcmoe::audit {
namespace {

at::Tensor UnitRows(const at::Tensor& rows_rd) {
  return rows_rd / (rows_rd.norm(2, 1, /*keepdim=*/true) + 1e-20);
}

at::Tensor Index(const std::vector<int64_t>& values) {
  at::Tensor index = at::empty({static_cast<int64_t>(values.size())}, at::kLong);
  std::copy(values.begin(), values.end(), index.mutable_data_ptr<int64_t>());
  return index;
}

// Experts of the layer that the coalition was ever asked for, float [E] of zeros and ones.
at::Tensor OwnExperts(const LayerView& layer) { return (layer.gate_re.sum(0) > 0).to(at::kFloat); }

}  // namespace

absl::StatusOr<std::vector<double>> ScoreByRows(const View& view, int64_t step, BaseModel& base,
                                                std::span<const data::Sequence> candidates) {
  PCMOE_ASSIGN_OR_RETURN(const Capture capture, base.Run(candidates, /*gradients=*/false));
  std::vector<double> scores(candidates.size(), 0.0);
  std::vector<int64_t> layers_used(candidates.size(), 0);
  for (size_t l = 0; l < view.layers.size(); ++l) {
    const LayerView& layer = view.layers[l];
    std::vector<int64_t> of_step;
    for (size_t r = 0; r < layer.sources.size(); ++r) {
      if (layer.sources[r].step == step) of_step.push_back(static_cast<int64_t>(r));
    }
    if (of_step.empty()) continue;
    const at::Tensor centre = capture.x_td[l].mean(0);
    const at::Tensor seen = UnitRows(layer.x_rd.index_select(0, Index(of_step)) - centre).t();
    const at::Tensor visible = at::mm(capture.gate_te[l], OwnExperts(layer).unsqueeze(1)) > 0;
    int64_t first = 0;
    for (size_t c = 0; c < candidates.size(); ++c) {
      const auto length = static_cast<int64_t>(candidates[c].tokens.size());
      const at::Tensor rows = visible.narrow(0, first, length).flatten().nonzero().flatten();
      if (rows.size(0) > 1) {
        const at::Tensor x = capture.x_td[l].narrow(0, first, length).index_select(0, rows);
        const at::Tensor best =
            std::get<0>(at::mm(UnitRows(x - centre), seen).amax(1).sort(0, /*descending=*/true));
        scores[c] += best.narrow(0, 0, rows.size(0) / 2).mean().item<double>();
        ++layers_used[c];
      }
      first += length;
    }
  }
  for (size_t c = 0; c < scores.size(); ++c) {
    if (layers_used[c] > 0) scores[c] /= static_cast<double>(layers_used[c]);
  }
  return scores;
}

absl::StatusOr<std::vector<double>> ScoreByLoss(BaseModel& model, BaseModel& base,
                                                std::span<const data::Sequence> candidates) {
  PCMOE_ASSIGN_OR_RETURN(std::vector<double> scores, base.Losses(candidates));
  PCMOE_ASSIGN_OR_RETURN(const std::vector<double> after, model.Losses(candidates));
  for (size_t c = 0; c < scores.size(); ++c) scores[c] -= after[c];
  return scores;
}

std::vector<bool> GuessHomeBySizes(const View& view) {
  using Key = std::tuple<int64_t, int, int64_t>;        // step, home, micro-batch
  std::map<std::pair<int64_t, int>, size_t> column_of;  // (layer, receiver)
  std::map<Key, std::map<size_t, double>> sizes;
  std::map<int, int64_t> class_of;
  std::set<int64_t> steps;
  for (const MessageSize& message : view.sizes) {
    if (message.kind != wire::MessageKind::kExpertRows) continue;
    if (std::find(view.coalition.begin(), view.coalition.end(), message.from) !=
        view.coalition.end()) {
      continue;
    }
    const size_t column =
        column_of.emplace(std::pair{message.layer, message.to}, column_of.size()).first->second;
    class_of.emplace(message.from, static_cast<int64_t>(class_of.size()));
    sizes[{message.step, message.from, message.micro_batch}][column] =
        static_cast<double>(message.bytes);
    steps.insert(message.step);
  }
  if (steps.size() < 8 || class_of.size() < 2) return {};
  const auto columns = static_cast<int64_t>(column_of.size());
  const auto rows_of = [&](int64_t odd, std::vector<int64_t>& classes) {
    std::vector<float> values;
    int64_t place = 0;
    std::map<int64_t, int64_t> place_of;
    for (const int64_t step : steps) place_of[step] = place++;
    for (const auto& [key, row] : sizes) {
      if (place_of[std::get<0>(key)] % 2 != odd) continue;
      classes.push_back(class_of[std::get<1>(key)]);
      for (size_t c = 0; c < column_of.size(); ++c) {
        const auto found = row.find(c);
        values.push_back(found == row.end() ? 0.0F : static_cast<float>(found->second));
      }
    }
    return at::tensor(values).view({static_cast<int64_t>(classes.size()), columns});
  };
  std::vector<int64_t> learn_classes, test_classes;
  const at::Tensor learn = rows_of(0, learn_classes);
  const at::Tensor test = rows_of(1, test_classes);
  const TokenDecoder decoder =
      TokenDecoder::Train(learn, Index(learn_classes), static_cast<int64_t>(class_of.size()),
                          {.hidden = 32, .epochs = 60, .batch = 32});
  const at::Tensor guess = decoder.Best(test);
  std::vector<bool> right;
  for (size_t i = 0; i < test_classes.size(); ++i) {
    right.push_back(guess.const_data_ptr<int64_t>()[i] == test_classes[i]);
  }
  return right;
}

}  // namespace pcmoe::audit
