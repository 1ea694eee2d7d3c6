// pcmoe/border/int8_rows_test.cc: how far int8 rows are from the matrix, and what is not finite
// stays so.
#include "pcmoe/border/int8_rows.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <limits>

namespace pcmoe::border {
namespace {

at::Tensor RoundTrip(const at::Tensor& matrix) {
  std::vector<uint8_t> bytes(Int8RowsBytes(matrix.size(0), matrix.size(1)));
  EncodeInt8Rows(matrix, bytes.data());
  at::Tensor back = at::empty_like(matrix);
  DecodeInt8Rows(bytes, back);
  return back;
}

TEST(Int8Rows, AreWithinHalfAStepOfEveryRow) {
  at::manual_seed(3);
  const at::Tensor matrix = at::randn({50, 300}) * at::rand({50, 1});
  const at::Tensor error = (RoundTrip(matrix) - matrix).abs();
  const at::Tensor step = matrix.abs().amax(1, true) / 127;
  EXPECT_TRUE((error <= 0.5001 * step).all().item<bool>());
  const double relative = ((RoundTrip(matrix) - matrix).norm() / matrix.norm()).item<double>();
  std::printf("relative error of a normal matrix, rows of 300: %.4f\n", relative);
  EXPECT_LT(relative, 0.009);
  EXPECT_GT(relative, 0.004);
}

TEST(Int8Rows, KeepZeroRowsAndLargestValuesAndOtherDtypes) {
  at::Tensor matrix = at::zeros({3, 4});
  matrix[1][2] = -5.0;
  EXPECT_TRUE(RoundTrip(matrix).equal(matrix));
  const at::Tensor bf16 = at::randn({8, 64}).to(at::kBFloat16);
  const at::Tensor back = RoundTrip(bf16);
  EXPECT_EQ(back.scalar_type(), at::kBFloat16);
  EXPECT_LT((back.to(at::kFloat) - bf16.to(at::kFloat)).abs().max().item<double>(), 0.03);
}

TEST(Int8Rows, WhatIsNotFiniteStaysSo) {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    at::Tensor matrix = at::ones({2, 4});
    matrix[1][3] = bad;
    const at::Tensor back = RoundTrip(matrix);
    EXPECT_TRUE(back[0].equal(matrix[0]));
    EXPECT_TRUE(back[1].isnan().all().item<bool>());
  }
}

}  // namespace
}  // namespace pcmoe::border
