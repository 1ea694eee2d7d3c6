// pcmoe/model/matmul_test.cc: the three products against LibTorch in double, at sizes that fill
// tiles, leave rests, and need several chunks; and what they promise about order.
#include "pcmoe/model/matmul.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <limits>

namespace pcmoe::model {
namespace {

struct Sizes {
  int64_t m, n, k;
};

class MatmulTest : public testing::TestWithParam<std::tuple<Sizes, at::ScalarType>> {
 protected:
  at::ScalarType dtype() const { return std::get<1>(GetParam()); }
  Sizes sizes() const { return std::get<0>(GetParam()); }
  // Columns of a wider tensor, so that rows are not next to each other.
  at::Tensor Random(int64_t rows, int64_t columns) const {
    return at::randn({rows, columns + 5}).to(dtype()).narrow(1, 2, columns);
  }
  void ExpectNear(const at::Tensor& got, const at::Tensor& want) const {
    const double k = static_cast<double>(sizes().k);
    // Without AMX, LibTorch rounds a bfloat16 product before it is added.
    const bool exact_sum = dtype() == at::kFloat || Bf16Products() == "amx";
    const double relative = got.scalar_type() == at::kFloat && exact_sum ? 1e-5 : 8e-3;
    EXPECT_LE((got.to(at::kDouble) - want).abs().max().item<double>(),
              relative * std::max(1.0, want.abs().max().item<double>()) + 1e-6 * std::sqrt(k));
  }
};

TEST_P(MatmulTest, TransposedRight) {
  const auto [m, n, k] = sizes();
  const at::Tensor a = Random(m, k);
  const at::Tensor w = Random(n, k);
  at::Tensor out = at::full({m, n}, 5.0, a.options());
  MatmulTransposed(a, w, out);
  ExpectNear(out, at::mm(a.to(at::kDouble), w.to(at::kDouble).t()));
}

TEST_P(MatmulTest, Plain) {
  const auto [m, n, k] = sizes();
  const at::Tensor a = Random(m, k);
  const at::Tensor w = Random(k, n);
  at::Tensor out = at::full({m, n}, 5.0, a.options());
  Matmul(a, w, out);
  ExpectNear(out, at::mm(a.to(at::kDouble), w.to(at::kDouble)));
}

TEST_P(MatmulTest, TransposedLeftIsAdded) {
  const auto [m, n, k] = sizes();
  const at::Tensor a = Random(k, m);
  const at::Tensor b = Random(k, n);
  at::Tensor gradient = at::randn({m, n});
  const at::Tensor want =
      gradient.to(at::kDouble) + at::mm(a.to(at::kDouble).t(), b.to(at::kDouble));
  AddTransposedMatmul(a, b, gradient);
  EXPECT_EQ(gradient.scalar_type(), at::kFloat);
  ExpectNear(gradient, want);
}

INSTANTIATE_TEST_SUITE_P(
    Sizes, MatmulTest,
    testing::Combine(testing::Values(Sizes{1, 1, 1}, Sizes{32, 32, 32}, Sizes{33, 31, 65},
                                     Sizes{5, 100, 64}, Sizes{200, 17, 7}, Sizes{64, 48, 2100},
                                     Sizes{70, 1100, 1030}, Sizes{16, 40, 1024}),
                     testing::Values(at::kFloat, at::kBFloat16)),
    [](const auto& one) {
      const Sizes s = std::get<0>(one.param);
      return std::to_string(s.m) + "x" + std::to_string(s.n) + "x" + std::to_string(s.k) +
             (std::get<1>(one.param) == at::kFloat ? "_f32" : "_bf16");
    });

TEST(Matmul, RowsDoNotDependOnTheirNeighboursOrOnThreads) {
  if (Bf16Products() != "amx") GTEST_SKIP() << "no AMX here: LibTorch computes, and promises less";
  const at::Tensor a = at::randn({150, 1500}).to(at::kBFloat16);
  const at::Tensor w = at::randn({90, 1500}).to(at::kBFloat16);
  at::Tensor whole = at::empty({150, 90}, a.options());
  MatmulTransposed(a, w, whole);
  for (const int64_t rows : {1, 17, 64, 149}) {
    at::Tensor part = at::empty({rows, 90}, a.options());
    MatmulTransposed(a.narrow(0, 150 - rows, rows), w, part);
    EXPECT_TRUE(at::equal(part, whole.narrow(0, 150 - rows, rows))) << rows;
  }
  const int before = at::get_num_threads();
  at::set_num_threads(3);
  at::Tensor threaded = at::empty({150, 90}, a.options());
  MatmulTransposed(a, w, threaded);
  at::set_num_threads(before);
  EXPECT_TRUE(at::equal(threaded, whole));
}

TEST(Matmul, NanAndInfinityReachTheResult) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    at::Tensor a = at::ones({40, 70}, at::TensorOptions().dtype(dtype));
    const at::Tensor w = at::ones({34, 70}, a.options());
    a[3][69] = std::numeric_limits<float>::quiet_NaN();
    a[39][0] = std::numeric_limits<float>::infinity();
    at::Tensor out = at::empty({40, 34}, a.options());
    MatmulTransposed(a, w, out);
    EXPECT_TRUE(at::isnan(out[3]).all().item<bool>());
    EXPECT_TRUE(at::isinf(out[39]).all().item<bool>());
    EXPECT_TRUE(at::isfinite(out.narrow(0, 4, 35)).all().item<bool>());
  }
}

TEST(Matmul, NoRowsAndNoDepth) {
  const auto bf16 = at::TensorOptions().dtype(at::kBFloat16);
  at::Tensor none = at::empty({0, 8}, bf16);
  MatmulTransposed(at::empty({0, 4}, bf16), at::ones({8, 4}, bf16), none);
  at::Tensor gradient = at::ones({4, 6});
  AddTransposedMatmul(at::empty({0, 4}, bf16), at::empty({0, 6}, bf16), gradient);
  EXPECT_TRUE(at::equal(gradient, at::ones({4, 6})));
}

}  // namespace
}  // namespace pcmoe::model
