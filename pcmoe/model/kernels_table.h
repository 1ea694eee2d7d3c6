// pcmoe/model/kernels_table.h: the loops that are compiled once per CPU feature level; see
// kernels.h. Included by files built with wide instruction sets: plain C types only, nothing inline
// from outside.
#pragma once

#include <cstdint>

namespace pcmoe::model::kernels {

/// One element type's loops (float, or bfloat16 as uint16_t bits). All work on `rows` rows in the
/// calling thread; arithmetic is fp32 and results are rounded once. Formulas: kernels.h.
struct Loops {
  void (*rms_norm)(const void* x, int64_t x_stride, const float* w, float eps, int64_t rows,
                   int64_t width, void* y, int64_t y_stride, float* rstd);
  /// `add`: dx is added to; else it is written, and may be dy itself.
  void (*rms_norm_backward)(const void* dy, int64_t dy_stride, const void* x, int64_t x_stride,
                            const float* w, const float* rstd, int64_t rows, int64_t width,
                            bool add, void* dx, int64_t dx_stride, float* dw_add);
  void (*rope)(const void* in, int64_t in_stride, void* out, int64_t out_stride, const float* cos,
               const float* sin, const int32_t* positions, int64_t rows, int64_t heads,
               int64_t head_dim, float sign);
  void (*swiglu)(const void* h, const float* scale, int64_t rows, int64_t width, void* a);
  void (*swiglu_backward)(const void* da, void* h_to_dh, const float* scale, int64_t rows,
                          int64_t width, void* scaled_a, float* dscale);
  void (*gather)(const void* in, const int32_t* index, int64_t rows, int64_t width, void* out);
  void (*gather_sum)(const void* in, const int32_t* offsets, const int32_t* positions, int64_t rows,
                     int64_t width, void* out);
  void (*cross_entropy)(void* logits_to_gradient, const int64_t* labels, float scale, int64_t rows,
                        int64_t width, float* loss);
  void (*scatter_add)(const void* rows, const int64_t* index, int64_t rows_count, int64_t width,
                      void* target);
};

struct Table {
  const char* name;  ///< "avx512", "avx2" or "baseline"
  Loops f32;
  Loops bf16;
};

const Table& Avx512Table();
const Table& Avx2Table();
const Table& BaselineTable();

}  // namespace pcmoe::model::kernels
