// pcmoe/audit/view.h: what a coalition of expert owners saw of a `rows` run: all that an attack may
// use. Built from recorded bytes alone. Shape legend: R rows, D hidden width, E experts, L layers.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <set>
#include <span>
#include <tuple>
#include <vector>

#include "pcmoe/audit/recording.h"
#include "pcmoe/model/config.h"

namespace pcmoe::audit {

/// Where a row came from: the home's message, and the place in it.
struct RowSource {
  int64_t step = 0;
  int64_t micro_batch = 0;
  int home = 0;       ///< The party whose token it is.
  int owner = 0;      ///< The member of the coalition that received it.
  int64_t place = 0;  ///< Index in the message; messages are shuffled.
};

/// All rows of one layer, without the padding (it has no experts, so it shows). A row that several
/// members received is here once: copies of a token's row are equal bit for bit.
struct LayerView {
  at::Tensor x_rd;  ///< float [R, D]: the experts' inputs.
  at::Tensor q_rd;  ///< float [R, D]: dL/d(output); zero where no gradient came.
  at::Tensor
      gate_re;  ///< float [R, E]: gate weights; zero for experts that are not the coalition's.
  std::vector<RowSource> sources;  ///< [R], of the first copy.
};

/// Sizes and places of received messages: what a counts-only attack may use.
struct MessageSize {
  wire::MessageKind kind = wire::MessageKind::kHello;
  int64_t step = 0, layer = 0, micro_batch = 0;
  int from = 0, to = 0;
  uint64_t bytes = 0;
};

/// What the coalition saw in some steps. Immutable once made.
struct View {
  std::vector<int> coalition;
  std::vector<int64_t> steps;      ///< Ascending; the steps that the rows below are from.
  std::vector<LayerView> layers;   ///< [L]; empty tensors where nothing came.
  std::vector<MessageSize> sizes;  ///< Of every training message of the whole run.
};

/// A member of the coalition and what it received.
struct Member {
  int party = 0;
  const Recording* recording = nullptr;
};

/// Steps in which expert rows of training came to any member, ascending.
std::vector<int64_t> StepsWithRows(std::span<const Member> members);

/// Sizes and places of all training messages that the members received.
std::vector<MessageSize> SizesOf(std::span<const Member> members);

/// Rows of the layers named; of all, when none is. DATA_LOSS naming the message when a payload is
/// not what its kind says.
absl::StatusOr<View> MakeView(std::span<const Member> members, const model::ModelConfig& config,
                              const std::set<int64_t>& steps, const std::set<int64_t>& layers = {});

}  // namespace pcmoe::audit
