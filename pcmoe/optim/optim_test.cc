// pcmoe/optim/optim_test.cc: optimizer, schedules and norms against slow formulas.
#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "pcmoe/optim/adamw.h"
#include "pcmoe/optim/norm.h"
#include "pcmoe/optim/schedule.h"

namespace pcmoe::optim {
namespace {

// AdamW in double precision, element by element (Loshchilov and Hutter 2019, algorithm 2).
struct SlowAdamW {
  double weight, first = 0, second = 0;
  void Step(double gradient, int64_t t, double rate, const AdamWOptions& o, bool decay) {
    if (decay) weight -= rate * o.weight_decay * weight;
    first = o.beta1 * first + (1 - o.beta1) * gradient;
    second = o.beta2 * second + (1 - o.beta2) * gradient * gradient;
    const double m = first / (1 - std::pow(o.beta1, t));
    const double v = second / (1 - std::pow(o.beta2, t));
    weight -= rate * m / (std::sqrt(v) + o.eps);
  }
};

TEST(AdamWTest, EqualsTheSlowFormulaWithClipAndDecay) {
  const AdamWOptions options{.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1};
  at::Tensor weight = at::randn({37});
  at::Tensor gradient = at::zeros_like(weight);
  at::Tensor norm = at::full({5}, 1.0, at::kFloat);
  at::Tensor norm_gradient = at::full({5}, 0.25, at::kFloat);
  std::vector<SlowAdamW> slow;
  for (int64_t i = 0; i < 37; ++i) slow.push_back({weight[i].item<double>()});
  SlowAdamW slow_norm{1.0};
  AdamW adamw({{weight, gradient, true}, {norm, norm_gradient, false}}, options);
  for (int64_t step = 1; step <= 10; ++step) {
    const at::Tensor fresh = at::randn({37});
    gradient.copy_(fresh);
    norm_gradient.fill_(0.25);
    adamw.Step(1e-2, 0.5);
    for (int64_t i = 0; i < 37; ++i) {
      slow[static_cast<size_t>(i)].Step(0.5 * fresh[i].item<double>(), step, 1e-2, options, true);
    }
    slow_norm.Step(0.125, step, 1e-2, options, false);
  }
  for (int64_t i = 0; i < 37; ++i) {
    EXPECT_NEAR(weight[i].item<double>(), slow[static_cast<size_t>(i)].weight, 1e-5);
  }
  EXPECT_NEAR(norm[0].item<double>(), slow_norm.weight, 1e-6);
}

TEST(AdamWTest, ALearningRateScaleIsARateOfItsOwnAndZeroIsFrozen) {
  const at::Tensor start = at::randn({8});
  const at::Tensor gradient = at::randn({8});
  std::vector<at::Tensor> weights;
  std::vector<Trainable> trainables;
  for (const double scale : {1.0, 0.25, 0.0}) {
    weights.push_back(start.clone());
    trainables.push_back({weights.back(), gradient.clone(), true, scale});
  }
  AdamW together(std::move(trainables), {.weight_decay = 0.1});
  at::Tensor alone = start.clone();
  AdamW quarter({{alone, gradient.clone(), true}}, {.weight_decay = 0.1});
  for (int step = 0; step < 3; ++step) {
    together.Step(4e-2, 1.0);
    quarter.Step(1e-2, 1.0);
  }
  EXPECT_TRUE(at::allclose(weights[1], alone, 1e-6, 1e-7));
  EXPECT_TRUE(at::equal(weights[2], start));
  EXPECT_FALSE(at::allclose(weights[0], weights[1], 1e-3, 1e-3));
}

TEST(AdamWTest, StepNumberContinuesAfterRestore) {
  at::Tensor a = at::full({3}, 1.0, at::kFloat);
  at::Tensor b = a.clone();
  at::Tensor gradient = at::full({3}, 0.5, at::kFloat);
  AdamW one({{a, gradient, true}}, {});
  one.Step(0.1, 1.0);
  AdamW two({{b, gradient, true}}, {});
  b.copy_(a);
  two.exp_avg()[0].copy_(one.exp_avg()[0]);
  two.exp_avg_sq()[0].copy_(one.exp_avg_sq()[0]);
  two.set_step(one.step());
  one.Step(0.1, 1.0);
  two.Step(0.1, 1.0);
  EXPECT_TRUE(a.equal(b));
}

TEST(ScheduleTest, FollowsTransformersFormulas) {
  EXPECT_DOUBLE_EQ(LearningRateFactor(SchedulerType::kLinear, 0, 10, 110), 0.0);
  EXPECT_DOUBLE_EQ(LearningRateFactor(SchedulerType::kLinear, 5, 10, 110), 0.5);
  EXPECT_DOUBLE_EQ(LearningRateFactor(SchedulerType::kLinear, 60, 10, 110), 0.5);
  EXPECT_DOUBLE_EQ(LearningRateFactor(SchedulerType::kLinear, 110, 10, 110), 0.0);
  EXPECT_DOUBLE_EQ(LearningRateFactor(SchedulerType::kCosine, 10, 10, 110), 1.0);
  EXPECT_NEAR(LearningRateFactor(SchedulerType::kCosine, 60, 10, 110), 0.5, 1e-12);
  EXPECT_DOUBLE_EQ(LearningRateFactor(SchedulerType::kConstant, 60, 10, 110), 1.0);
  EXPECT_FALSE(ParseSchedulerType("polynomial").ok());
}

TEST(NormTest, SumsInDoubleAndShowsWhatIsNotFinite) {
  at::Tensor x = at::full({100000}, 1e-3, at::kFloat);
  EXPECT_NEAR(SumOfSquares(x), 0.1, 1e-8);
  x[777] = std::numeric_limits<float>::infinity();
  EXPECT_FALSE(std::isfinite(SumOfSquares(x)));
  x[777] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_FALSE(std::isfinite(SumOfSquares(x)));
  x[777] = 3e38F;
  EXPECT_TRUE(std::isfinite(SumOfSquares(x)));
}

TEST(NormTest, ClipFactorIsTorchs) {
  EXPECT_DOUBLE_EQ(ClipFactor(0.5, 1.0), 1.0);
  EXPECT_NEAR(ClipFactor(4.0, 1.0), 1.0 / (4.0 + 1e-6), 1e-12);
  EXPECT_DOUBLE_EQ(ClipFactor(100.0, 0.0), 1.0);
}

}  // namespace
}  // namespace pcmoe::optim
