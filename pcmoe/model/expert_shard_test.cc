// pcmoe/model/expert_shard_test.cc: the owner's explicit formulas against autograd and finite
// differences; recompute, split requests and their order of arrival change nothing.
#include "pcmoe/model/expert_shard.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace pcmoe::model {
namespace {

constexpr int64_t kExperts = 5;

ModelConfig TinyConfig(int64_t hidden, int64_t expert_size) {
  ModelConfig config;
  config.vocab_size = 16;
  config.hidden_size = hidden;
  config.num_layers = 1;
  config.num_heads = config.num_kv_heads = 1;
  config.head_dim = hidden;
  config.num_experts = kExperts;
  config.experts_per_token = 2;
  config.expert_size = expert_size;
  config.sparse_layers = {true};
  return config;
}

ExpertParameters RandomExperts(const ModelConfig& config) {
  ExpertParameters experts = EmptyExperts(config, AllExperts(config));
  experts[0].gate_up_efd.copy_(at::randn_like(experts[0].gate_up_efd) * 0.3);
  experts[0].down_edf.copy_(at::randn_like(experts[0].down_edf) * 0.3);
  return experts;
}

ExpertParameters Copy(const ExpertParameters& experts) {
  ExpertParameters copy = experts;
  copy[0].gate_up_efd = experts[0].gate_up_efd.clone();
  copy[0].down_edf = experts[0].down_edf.clone();
  return copy;
}

// Two experts a row, some experts unused, weights of both signs.
std::vector<RowExpert> SomePairs(int64_t rows) {
  std::vector<RowExpert> pairs;
  for (int32_t r = 0; r < rows; ++r) {
    const int32_t first = (r * 7) % 4;
    pairs.push_back({r, first, 0.25F + 0.1F * static_cast<float>(r % 5)});
    if (r % 3 != 0) pairs.push_back({r, (first + 1) % 4, -0.5F});
  }
  return pairs;
}

PairPlan Plan(const std::vector<RowExpert>& pairs, int64_t rows) {
  absl::StatusOr<PairPlan> plan = PlanPairs(pairs, rows, kExperts);
  EXPECT_TRUE(plan.ok()) << plan.status();
  return *std::move(plan);
}

struct Outcome {
  at::Tensor z, dx, dweight, dgate_up, ddown;
};

Outcome RunShard(ExpertShard& shard, const at::Tensor& x, const at::Tensor& dz,
                 const std::vector<RowExpert>& pairs) {
  shard.Reset();
  Outcome outcome;
  outcome.z = shard.Forward(0, {0, 0}, x, Plan(pairs, x.size(0)), true);
  auto gradients = shard.Backward(0, {0, 0}, dz);
  EXPECT_TRUE(gradients.ok()) << gradients.status();
  shard.FinishLayer(0);
  outcome.dx = gradients->dx_rd;
  outcome.dweight = gradients->dweight_n;
  outcome.dgate_up = shard.gradients()[0].gate_up_efd.clone();
  outcome.ddown = shard.gradients()[0].down_edf.clone();
  return outcome;
}

// The plain formula under autograd, in double.
Outcome RunReference(const ExpertParameters& experts, const at::Tensor& x, const at::Tensor& dz,
                     const std::vector<RowExpert>& pairs) {
  const at::Tensor xd = x.to(at::kDouble).detach().clone().requires_grad_();
  const at::Tensor gate_up =
      experts[0].gate_up_efd.to(at::kDouble).detach().clone().requires_grad_();
  const at::Tensor down = experts[0].down_edf.to(at::kDouble).detach().clone().requires_grad_();
  const int64_t width = down.size(2);
  std::vector<double> values;
  for (const RowExpert& pair : pairs) values.push_back(static_cast<double>(pair.weight));
  const at::Tensor weights = at::tensor(values, at::kDouble).requires_grad_();
  std::vector<at::Tensor> rows(static_cast<size_t>(x.size(0)), at::zeros({x.size(1)}, at::kDouble));
  for (size_t i = 0; i < pairs.size(); ++i) {
    const at::Tensor h = at::mv(gate_up[pairs[i].expert], xd[pairs[i].row]);
    const at::Tensor a = at::silu(h.narrow(0, 0, width)) * h.narrow(0, width, width);
    auto& row = rows[static_cast<size_t>(pairs[i].row)];
    row = row + weights[static_cast<int64_t>(i)] * at::mv(down[pairs[i].expert], a);
  }
  const at::Tensor z = at::stack(rows);
  z.backward(dz.to(at::kDouble));
  return {z.detach(), xd.grad(), weights.grad(), gate_up.grad(), down.grad()};
}

void ExpectNear(const Outcome& got, const Outcome& want, double relative) {
  const auto near = [relative](const at::Tensor& a, const at::Tensor& b, const char* name) {
    EXPECT_LE((a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>(),
              relative * b.abs().max().item<double>())
        << name;
  };
  near(got.z, want.z, "z");
  near(got.dx, want.dx, "dx");
  near(got.dweight, want.dweight, "dweight");
  near(got.dgate_up, want.dgate_up, "dgate_up");
  near(got.ddown, want.ddown, "ddown");
}

void ExpectEqual(const Outcome& a, const Outcome& b) {
  EXPECT_TRUE(at::equal(a.z, b.z));
  EXPECT_TRUE(at::equal(a.dx, b.dx));
  EXPECT_TRUE(at::equal(a.dweight, b.dweight));
  EXPECT_TRUE(at::equal(a.dgate_up, b.dgate_up));
  EXPECT_TRUE(at::equal(a.ddown, b.ddown));
}

class ExpertShardTest : public testing::TestWithParam<at::ScalarType> {
 protected:
  double Tolerance() const { return GetParam() == at::kFloat ? 2e-6 : 2e-2; }
  const ModelConfig config_ = TinyConfig(24, 20);
  const ExpertParameters experts_ = RandomExperts(config_);
  const at::Tensor x_ = at::randn({41, 24}).to(GetParam());
  const at::Tensor dz_ = at::randn({41, 24}).to(GetParam());
  const std::vector<RowExpert> pairs_ = SomePairs(41);
};

TEST_P(ExpertShardTest, EqualsAutogradOfThePlainFormula) {
  ExpertShard shard(config_, Copy(experts_), {.compute_dtype = GetParam()});
  ExpectNear(RunShard(shard, x_, dz_, pairs_), RunReference(experts_, x_, dz_, pairs_),
             Tolerance());
}

TEST_P(ExpertShardTest, RecomputeAndASecondStepGiveTheSameBits) {
  ExpertShard kept(config_, Copy(experts_), {.compute_dtype = GetParam()});
  ExpertShard again(config_, Copy(experts_), {.compute_dtype = GetParam(), .recompute = true});
  const Outcome first = RunShard(kept, x_, dz_, pairs_);
  ExpectEqual(first, RunShard(again, x_, dz_, pairs_));
  ExpectEqual(first, RunShard(kept, x_, dz_, pairs_));
}

TEST_P(ExpertShardTest, SplitRequestsSumToOneWhateverTheOrderOfArrival) {
  ExpertShard shard(config_, Copy(experts_), {.compute_dtype = GetParam()});
  const Outcome whole = RunShard(shard, x_, dz_, pairs_);
  const auto run = [&](const std::vector<int>& order) {
    shard.Reset();
    const std::vector<int64_t> bounds = {0, 13, 30, 41};
    std::vector<Outcome> parts(3);
    const auto slice = [&](const at::Tensor& t, size_t i) {
      return t.narrow(0, bounds[i], bounds[i + 1] - bounds[i]).contiguous();
    };
    for (const int at : order) {
      const auto i = static_cast<size_t>(at);
      std::vector<RowExpert> own;
      for (RowExpert pair : pairs_) {
        if (pair.row < bounds[i] || pair.row >= bounds[i + 1]) continue;
        pair.row -= static_cast<int32_t>(bounds[i]);
        own.push_back(pair);
      }
      parts[i].z =
          shard.Forward(0, {at, 0}, slice(x_, i), Plan(own, bounds[i + 1] - bounds[i]), true);
    }
    for (const int at : order) {
      const auto i = static_cast<size_t>(at);
      auto gradients = shard.Backward(0, {at, 0}, slice(dz_, i));
      EXPECT_TRUE(gradients.ok());
      parts[i].dx = gradients->dx_rd;
      parts[i].dweight = gradients->dweight_n;
    }
    shard.FinishLayer(0);
    return Outcome{at::cat({parts[0].z, parts[1].z, parts[2].z}),
                   at::cat({parts[0].dx, parts[1].dx, parts[2].dx}),
                   at::cat({parts[0].dweight, parts[1].dweight, parts[2].dweight}),
                   shard.gradients()[0].gate_up_efd.clone(), shard.gradients()[0].down_edf.clone()};
  };
  const Outcome in_order = run({0, 1, 2});
  ExpectEqual(in_order, run({2, 0, 1}));
  ExpectNear(in_order, whole, GetParam() == at::kFloat ? 1e-5 : 1e-2);
}

INSTANTIATE_TEST_SUITE_P(Dtypes, ExpertShardTest, testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& one) { return one.param == at::kFloat ? "f32" : "bf16"; });

TEST(ExpertShard, FiniteDifferencesAgree) {
  const ModelConfig config = TinyConfig(4, 3);
  const ExpertParameters experts = RandomExperts(config);
  ExpertShard shard(config, Copy(experts), {});
  const at::Tensor x = at::randn({3, 4});
  const at::Tensor dz = at::randn({3, 4});
  const std::vector<RowExpert> pairs = {{0, 1, 0.7F}, {0, 2, 0.3F}, {1, 1, -0.4F}, {2, 4, 1.5F}};
  const Outcome got = RunShard(shard, x, dz, pairs);
  const auto value = [&]() {
    shard.RefreshComputeWeights();
    const at::Tensor z = shard.Forward(0, {0, 0}, x, Plan(pairs, 3), false);
    return (z.to(at::kDouble) * dz.to(at::kDouble)).sum().item<double>();
  };
  const auto check = [&](const at::Tensor& variable, const at::Tensor& gradient) {
    constexpr float kStep = 1e-2F;
    float* values = variable.mutable_data_ptr<float>();
    for (int64_t i = 0; i < variable.numel(); ++i) {
      const float before = values[i];
      values[i] = before + kStep;
      const double above = value();
      values[i] = before - kStep;
      const double below = value();
      values[i] = before;
      EXPECT_NEAR((above - below) / (2.0 * static_cast<double>(kStep)),
                  static_cast<double>(gradient.const_data_ptr<float>()[i]), 3e-3)
          << i;
    }
  };
  check(x, got.dx);
  check(shard.mutable_weights()[0].gate_up_efd, got.dgate_up);
  check(shard.mutable_weights()[0].down_edf, got.ddown);
}

TEST(ExpertShard, GradientsForRowsThatDoNotWaitAreRefused) {
  const ModelConfig config = TinyConfig(8, 8);
  ExpertShard shard(config, RandomExperts(config), {});
  const at::Tensor x = at::randn({2, 8});
  EXPECT_EQ(shard.Backward(0, {0, 0}, x).status().code(), absl::StatusCode::kFailedPrecondition);
  shard.Forward(0, {0, 0}, x, Plan({{0, 0, 1.0F}}, 2), true);
  EXPECT_TRUE(shard.Backward(0, {0, 0}, x).ok());
  EXPECT_EQ(shard.Backward(0, {0, 0}, x).status().code(), absl::StatusCode::kFailedPrecondition);
  shard.Forward(0, {1, 0}, x, Plan({}, 2), true);  // no pair at all
  const auto none = shard.Backward(0, {1, 0}, x);
  ASSERT_TRUE(none.ok());
  EXPECT_EQ(at::count_nonzero(none->dx_rd).item<int64_t>(), 0);
}

}  // namespace
}  // namespace pcmoe::model
