// pcmoe/model/kernels_test.cc: every loop of every table against LibTorch's slow formulas, fp32 and
// bfloat16, at widths that are and are not multiples of a vector.
#include "pcmoe/model/kernels.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "pcmoe/model/kernels_table.h"

namespace pcmoe::model::kernels {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Tables this processor can run.
std::vector<const Table*> Tables() {
  std::vector<const Table*> tables{&BaselineTable()};
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    tables.push_back(&Avx2Table());
  if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq")) {
    tables.push_back(&Avx512Table());
  }
  return tables;
}

struct Case {
  const Table* table;
  at::ScalarType dtype;
  int64_t width;
};

class LoopsTest : public testing::TestWithParam<Case> {
 protected:
  const Loops& loops() const {
    return GetParam().dtype == at::kFloat ? GetParam().table->f32 : GetParam().table->bf16;
  }
  int64_t width() const { return GetParam().width; }
  at::Tensor Random(at::IntArrayRef sizes) const { return at::randn(sizes).to(GetParam().dtype); }
  at::Tensor Empty(at::IntArrayRef sizes) const {
    return at::full(sizes, 77.0, at::TensorOptions().dtype(GetParam().dtype));
  }
  // Equal to a reference in double, up to the rounding of fp32 sums or of bfloat16.
  void ExpectNear(const at::Tensor& got, const at::Tensor& want, double scale = 1) const {
    const double tolerance = (got.scalar_type() == at::kFloat ? 3e-6 : 5e-3) * scale;
    const at::Tensor difference = (got.to(at::kDouble) - want.to(at::kDouble)).abs();
    EXPECT_TRUE(
        at::all(at::le(difference, tolerance * (1 + want.to(at::kDouble).abs()))).item<bool>())
        << "largest difference " << difference.max().item<double>();
  }
};

void* Data(const at::Tensor& x) { return x.mutable_data_ptr(); }
float* Floats(const at::Tensor& x) { return x.mutable_data_ptr<float>(); }

TEST_P(LoopsTest, RmsNorm) {
  const at::Tensor wide = Random({5, width() + 3});
  const at::Tensor x = wide.narrow(1, 1, width());
  const at::Tensor w = at::randn({width()});
  const at::Tensor y = Empty({5, width()});
  const at::Tensor rstd = at::empty({5});
  loops().rms_norm(Data(x), x.stride(0), Floats(w), 1e-5F, 5, width(), Data(y), width(),
                   Floats(rstd));
  const at::Tensor xd = x.to(at::kDouble);
  const at::Tensor r = at::rsqrt(at::mean(xd * xd, {1}, true) + 1e-5);
  ExpectNear(rstd, r.squeeze(1));
  ExpectNear(y, xd * r * w);
}

TEST_P(LoopsTest, RmsNormBackwardAddsOrWrites) {
  const at::Tensor x = Random({6, width()});
  const at::Tensor w = at::randn({width()});
  const at::Tensor dy = Random({6, width()});
  const at::Tensor dx = Random({6, width()});
  at::Tensor xd = x.to(at::kDouble).requires_grad_();
  at::Tensor wd = w.to(at::kDouble).requires_grad_();
  const at::Tensor r = at::rsqrt(at::mean(xd * xd, {1}, true) + 1e-5);
  (xd * r * wd).backward(dy.to(at::kDouble));
  const at::Tensor want_added = dx.to(at::kDouble) + xd.grad();
  const at::Tensor rstd = r.detach().squeeze(1).to(at::kFloat).contiguous();
  const at::Tensor dw = at::ones({width()});
  loops().rms_norm_backward(Data(dy), width(), Data(x), width(), Floats(w), Floats(rstd), 6,
                            width(), true, Data(dx), width(), Floats(dw));
  ExpectNear(dx, want_added, 4);
  ExpectNear(dw, 1 + wd.grad(), 4);
  // In place.
  loops().rms_norm_backward(Data(dy), width(), Data(x), width(), Floats(w), Floats(rstd), 6,
                            width(), false, Data(dy), width(), Floats(dw));
  ExpectNear(dy, xd.grad(), 4);
}

TEST_P(LoopsTest, RopeTurnsAndTurnsBack) {
  const int64_t head_dim = 2 * width();
  const at::Tensor x = Random({4, 3 * head_dim});
  const at::Tensor angle = at::randn({9, width()});
  const at::Tensor cos = at::cos(angle);
  const at::Tensor sin = at::sin(angle);
  const at::Tensor positions = at::tensor({0, 3, 8, 3}, at::kInt);
  const at::Tensor y = Empty({4, 3 * head_dim});
  loops().rope(Data(x), 3 * head_dim, Data(y), 3 * head_dim, Floats(cos), Floats(sin),
               positions.const_data_ptr<int32_t>(), 4, 3, head_dim, 1.0F);
  const at::Tensor heads = x.to(at::kDouble).view({4, 3, 2, width()});
  const at::Tensor c = at::index_select(cos, 0, positions).unsqueeze(1);
  const at::Tensor s = at::index_select(sin, 0, positions).unsqueeze(1);
  const at::Tensor a = heads.select(2, 0);
  const at::Tensor b = heads.select(2, 1);
  ExpectNear(y, at::stack({a * c - b * s, b * c + a * s}, 2).view({4, 3 * head_dim}), 2);
  loops().rope(Data(y), 3 * head_dim, Data(y), 3 * head_dim, Floats(cos), Floats(sin),
               positions.const_data_ptr<int32_t>(), 4, 3, head_dim, -1.0F);
  ExpectNear(y, x, 3);
}

TEST_P(LoopsTest, SwiGluAndItsBackward) {
  at::Tensor h = Random({5, 2 * width()}) * 3;
  h[0][0] = 200.0;  // saturates
  h[1][0] = -200.0;
  const at::Tensor scale = at::randn({5});
  const at::Tensor a = Empty({5, width()});
  loops().swiglu(Data(h), Floats(scale), 5, width(), Data(a));
  at::Tensor hd = h.to(at::kDouble).requires_grad_();
  const at::Tensor ad = at::silu(hd.narrow(1, 0, width())) * hd.narrow(1, width(), width());
  ExpectNear(a, ad.detach() * scale.unsqueeze(1), 4);
  loops().swiglu(Data(h), nullptr, 5, width(), Data(a));
  ExpectNear(a, ad.detach(), 4);

  const at::Tensor da = Random({5, width()});
  ad.backward(da.to(at::kDouble));
  const at::Tensor scaled = Empty({5, width()});
  const at::Tensor dscale = at::empty({5});
  loops().swiglu_backward(Data(da), Data(h), Floats(scale), 5, width(), Data(scaled),
                          Floats(dscale));
  ExpectNear(h, hd.grad() * scale.unsqueeze(1), 8);
  ExpectNear(scaled, ad.detach() * scale.unsqueeze(1), 4);
  ExpectNear(dscale, (ad.detach() * da).sum(1), 20.0 * static_cast<double>(width()));
}

TEST_P(LoopsTest, GatherAndGatherSum) {
  const at::Tensor x = Random({4, width()});
  const at::Tensor index = at::tensor({3, 0, 0, 2, 3, 3}, at::kInt);
  const at::Tensor rows = Empty({6, width()});
  loops().gather(Data(x), index.const_data_ptr<int32_t>(), 6, width(), Data(rows));
  EXPECT_TRUE(at::equal(rows, at::index_select(x, 0, index)));
  const at::Tensor offsets = at::tensor({0, 2, 2, 6}, at::kInt);
  const at::Tensor positions = at::tensor({5, 1, 0, 2, 3, 4}, at::kInt);
  const at::Tensor sum = Empty({3, width()});
  loops().gather_sum(Data(rows), offsets.const_data_ptr<int32_t>(),
                     positions.const_data_ptr<int32_t>(), 3, width(), Data(sum));
  const at::Tensor d = rows.to(at::kDouble);
  ExpectNear(sum[0], d[5] + d[1], 2);
  EXPECT_EQ(at::count_nonzero(sum[1]).item<int64_t>(), 0);
  ExpectNear(sum[2], d[0] + d[2] + d[3] + d[4], 4);
}

TEST_P(LoopsTest, CrossEntropyAndItsGradient) {
  at::Tensor logits = Random({3, width()}) * 4;
  logits[0][width() - 1] = 300.0;
  at::Tensor ld = logits.to(at::kDouble).requires_grad_();
  const at::Tensor labels = at::tensor({width() - 1, int64_t{-100}, int64_t{0}}, at::kLong);
  const at::Tensor loss = at::full({3}, 9.0);
  loops().cross_entropy(Data(logits), labels.const_data_ptr<int64_t>(), 0.5F, 3, width(),
                        Floats(loss));
  const at::Tensor want = at::cross_entropy_loss(ld, labels, {}, at::Reduction::None, -100);
  (0.5 * want.sum()).backward();
  ExpectNear(loss, want.detach(), 10);
  ExpectNear(logits, ld.grad(), 2);
}

TEST_P(LoopsTest, ScatterAdd) {
  const at::Tensor rows = Random({2, width()});
  const at::Tensor target = Random({4, width()});
  const at::Tensor index = at::tensor({3, 1}, at::kLong);
  const at::Tensor want = at::index_add(target.to(at::kDouble), 0, index, rows.to(at::kDouble));
  loops().scatter_add(Data(rows), index.const_data_ptr<int64_t>(), 2, width(), Data(target));
  ExpectNear(target, want);
}

TEST_P(LoopsTest, NanStaysNan) {
  const auto nan_at = [](const at::Tensor& x) { return at::isnan(x).any().item<bool>(); };
  at::Tensor h = Random({1, 2 * width()});
  h[0][width() / 2] = kNan;
  const at::Tensor a = Empty({1, width()});
  loops().swiglu(Data(h), nullptr, 1, width(), Data(a));
  EXPECT_TRUE(nan_at(a[0][width() / 2]));
  const at::Tensor da = Random({1, width()});
  const at::Tensor dscale = at::empty({1});
  loops().swiglu_backward(Data(da), Data(h), nullptr, 1, width(), Data(a), Floats(dscale));
  EXPECT_TRUE(nan_at(h[0][width() / 2]) && nan_at(dscale));
  at::Tensor x = Random({1, width()});
  x[0][0] = kNan;
  const at::Tensor w = at::ones({width()});
  const at::Tensor rstd = at::empty({1});
  loops().rms_norm(Data(x), width(), Floats(w), 1e-5F, 1, width(), Data(a), width(), Floats(rstd));
  EXPECT_TRUE(at::isnan(a).all().item<bool>());
  const at::Tensor label = at::zeros({1}, at::kLong);
  for (const int64_t place : {int64_t{0}, width() / 2, width() - 1}) {
    at::Tensor logits = Random({1, width()});
    logits[0][place] = kNan;
    const at::Tensor loss = at::zeros({1});
    loops().cross_entropy(Data(logits), label.const_data_ptr<int64_t>(), 1.0F, 1, width(),
                          Floats(loss));
    EXPECT_TRUE(nan_at(loss)) << "at " << place;
    EXPECT_TRUE(nan_at(logits)) << "at " << place;
  }
}

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const Table* table : Tables()) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      for (const int64_t width : {2, 16, 37, 64, 259, 600}) cases.push_back({table, dtype, width});
    }
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Tables, LoopsTest, testing::ValuesIn(Cases()), [](const auto& one) {
  return std::string(one.param.table->name) + "_" +
         (one.param.dtype == at::kFloat ? "f32_" : "bf16_") + std::to_string(one.param.width);
});

// Norms of several groups in strided columns, as the q and k heads have them.
TEST(Kernels, RmsNormOfGroupsEqualsEachGroupByItself) {
  const at::Tensor wide = at::randn({7, 50});
  const at::Tensor x = wide.narrow(1, 5, 36);
  const at::Tensor w = at::randn({12});
  at::Tensor y = at::empty({7, 36});
  at::Tensor rstd = at::empty({21});
  RmsNorm(x, w, 1e-6, y, rstd);
  at::Tensor dx = at::zeros({7, 36});
  at::Tensor dw = at::zeros({12});
  const at::Tensor dy = at::randn({7, 36});
  RmsNormBackward(dy, x, w, rstd, dx, dw);
  at::Tensor want_dw = at::zeros({12});
  for (int64_t g = 0; g < 3; ++g) {
    const at::Tensor part = x.narrow(1, 12 * g, 12).contiguous();
    at::Tensor one = at::empty({7, 12});
    at::Tensor one_rstd = at::empty({7});
    RmsNorm(part, w, 1e-6, one, one_rstd);
    EXPECT_TRUE(at::equal(one, y.narrow(1, 12 * g, 12)));
    at::Tensor one_dx = at::zeros({7, 12});
    RmsNormBackward(dy.narrow(1, 12 * g, 12).contiguous(), part, w, one_rstd, one_dx, want_dw);
    EXPECT_TRUE(at::allclose(one_dx, dx.narrow(1, 12 * g, 12), 1e-5, 1e-6));
  }
  EXPECT_TRUE(at::allclose(dw, want_dw, 1e-5, 1e-5));
}

}  // namespace
}  // namespace pcmoe::model::kernels
