// pcmoe/model/init.cc: random weights that every processor, alone or with others, draws alike.
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <cmath>

#include "pcmoe/base/random.h"
#include "pcmoe/model/slots.h"

namespace pcmoe::model {
namespace {

// Natural logarithm from exact operations and rounded basic ones alone: libm's differs by version
// and processor in the last bit, and parties compare digests of their start. Relative error below
// 1e-14.
double Log(double x) {
  int exponent = 0;
  double mantissa = std::frexp(x, &exponent);
  if (mantissa < 0.70710678118654752) {
    mantissa *= 2;
    --exponent;
  }
  const double s = (mantissa - 1) / (mantissa + 1);
  const double s2 = s * s;
  double sum = 0;
  for (int k = 19; k >= 1; k -= 2) sum = sum * s2 + 1.0 / k;
  return 2 * s * sum + exponent * 0.69314718055994531;
}

// Standard normal numbers: Marsaglia's polar method over a counter hashed by splitmix64's
// finaliser.
class NormalStream {
 public:
  explicit NormalStream(uint64_t seed) : state_(seed) {}

  double Next() {
    if (has_spare_) {
      has_spare_ = false;
      return spare_;
    }
    double u = 0;
    double v = 0;
    double square = 0;
    do {
      u = Uniform();
      v = Uniform();
      square = u * u + v * v;
    } while (square >= 1 || square == 0);
    const double scale = std::sqrt(-2 * Log(square) / square);
    spare_ = v * scale;
    has_spare_ = true;
    return u * scale;
  }

 private:
  // In [-1, 1), in steps of 2^-52.
  double Uniform() {
    state_ += 0x9e3779b97f4a7c15U;
    uint64_t z = state_;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9U;
    z = (z ^ z >> 27) * 0x94d049bb133111ebU;
    z ^= z >> 31;
    return static_cast<double>(z >> 11) * 0x1p-52 - 1;
  }

  uint64_t state_;
  double spare_ = 0;
  bool has_spare_ = false;
};

void FillNormal(uint64_t seed, double deviation, const at::Tensor& tensor) {
  const bool direct =
      tensor.is_contiguous() && tensor.is_cpu() && tensor.scalar_type() == at::kFloat;
  const at::Tensor target =
      direct ? tensor : at::empty(tensor.sizes(), at::TensorOptions().dtype(at::kFloat));
  auto* numbers = target.mutable_data_ptr<float>();
  NormalStream stream(seed);
  for (int64_t i = 0; i < target.numel(); ++i) {
    numbers[i] = static_cast<float>(deviation * stream.Next());
  }
  if (!direct) tensor.copy_(target);
}

uint64_t StreamOf(uint64_t seed, std::string_view name) {
  return base::SeedOf(seed, absl::StrCat("init/", std::string(name)));
}

}  // namespace

void Initialise(const ModelConfig& config, uint64_t seed, BackboneParameters& backbone) {
  const std::vector<Slot> slots = BackboneSlots(config, backbone);
  at::parallel_for(0, static_cast<int64_t>(slots.size()), 1, [&](int64_t begin, int64_t end) {
    const at::NoGradGuard no_grad;  // A setting of each thread.
    for (int64_t i = begin; i < end; ++i) {
      const Slot& slot = slots[static_cast<size_t>(i)];
      if (!slot.tensor->defined()) continue;  // elsewhere
      if (slot.kind == SlotKind::kNorm || slot.kind == SlotKind::kBias) {
        slot.tensor->fill_(slot.kind == SlotKind::kNorm ? 1 : 0);
        continue;
      }
      FillNormal(StreamOf(seed, slot.name), config.initializer_range, *slot.tensor);
      if (slot.kind == SlotKind::kEmbedding && config.pad_token_id >= 0) {
        slot.tensor->select(0, config.pad_token_id).zero_();
      }
    }
  });
}

void Initialise(const ModelConfig& config, uint64_t seed, ExpertParameters& experts) {
  const std::vector<NamedTensor> named = NamedExperts(config, experts);
  at::parallel_for(0, static_cast<int64_t>(named.size()), 1, [&](int64_t begin, int64_t end) {
    const at::NoGradGuard no_grad;
    for (int64_t i = begin; i < end; ++i) {
      const NamedTensor& item = named[static_cast<size_t>(i)];
      FillNormal(StreamOf(seed, item.name), config.initializer_range, item.tensor);
    }
  });
}

}  // namespace pcmoe::model
