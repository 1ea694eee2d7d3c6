// pcmoe/model/kernels.cc: see kernels.h; picks the loops and spreads rows over threads.
#include "pcmoe/model/kernels.h"

#include <ATen/Parallel.h>
#include <ATen/ops/zeros.h>

#include "pcmoe/base/cpu_level.h"
#include "pcmoe/model/kernels_table.h"

namespace pcmoe::model::kernels {
namespace {

const Table& Choose() {
  switch (base::ActiveCpuLevel()) {
    case base::CpuLevel::kAvx512:
      return Avx512Table();
    case base::CpuLevel::kAvx2:
      return Avx2Table();
    case base::CpuLevel::kBaseline:
      break;
  }
  return BaselineTable();
}

const Table& Active() {
  static const Table& table = Choose();
  return table;
}

const Loops& LoopsFor(const at::Tensor& x) {
  return x.scalar_type() == at::kBFloat16 ? Active().bf16 : Active().f32;
}

// Rows a thread takes at least: about 16 k elements, below which starting a thread costs more.
int64_t Grain(int64_t width) { return std::max<int64_t>(1, 16384 / std::max<int64_t>(1, width)); }

const char* RowAt(const at::Tensor& x, int64_t row) {
  return static_cast<const char*>(x.const_data_ptr()) + row * x.stride(0) * x.element_size();
}
char* MutableRowAt(at::Tensor& x, int64_t row) {
  return static_cast<char*>(x.mutable_data_ptr()) + row * x.stride(0) * x.element_size();
}

}  // namespace

std::string_view ActiveLevel() { return Active().name; }

void RmsNorm(const at::Tensor& x_rd, const at::Tensor& w_d, double eps, at::Tensor& y_rd,
             at::Tensor& rstd_gr) {
  const int64_t rows = x_rd.size(0);
  const int64_t width = w_d.size(0);
  const int64_t groups = x_rd.size(1) / width;
  const int64_t group_bytes = width * x_rd.element_size();
  at::parallel_for(0, rows, Grain(x_rd.size(1)), [&](int64_t begin, int64_t end) {
    for (int64_t g = 0; g < groups; ++g) {
      LoopsFor(x_rd).rms_norm(RowAt(x_rd, begin) + g * group_bytes, x_rd.stride(0),
                              w_d.const_data_ptr<float>(), static_cast<float>(eps), end - begin,
                              width, MutableRowAt(y_rd, begin) + g * group_bytes, y_rd.stride(0),
                              rstd_gr.mutable_data_ptr<float>() + g * rows + begin);
    }
  });
}

void RmsNormBackward(const at::Tensor& dy_rd, const at::Tensor& x_rd, const at::Tensor& w_d,
                     const at::Tensor& rstd_gr, at::Tensor& dx_rd, at::Tensor& dw_d,
                     Gradient gradient) {
  const int64_t rows = x_rd.size(0);
  const int64_t width = w_d.size(0);
  const int64_t groups = x_rd.size(1) / width;
  const int64_t group_bytes = width * x_rd.element_size();
  // One partial sum a thread, added in thread order: repeatable for a given number of threads.
  const int64_t threads = at::get_num_threads();
  const int64_t share = (rows + threads - 1) / threads;
  at::Tensor partial = at::zeros({threads, width}, at::kFloat);
  at::parallel_for(0, threads, 1, [&](int64_t first, int64_t last) {
    for (int64_t thread = first; thread < last; ++thread) {
      const int64_t begin = thread * share;
      const int64_t end = std::min(rows, begin + share);
      if (begin >= end) continue;
      for (int64_t g = 0; g < groups; ++g) {
        LoopsFor(x_rd).rms_norm_backward(
            RowAt(dy_rd, begin) + g * group_bytes, dy_rd.stride(0),
            RowAt(x_rd, begin) + g * group_bytes, x_rd.stride(0), w_d.const_data_ptr<float>(),
            rstd_gr.const_data_ptr<float>() + g * rows + begin, end - begin, width,
            gradient == Gradient::kAdd, MutableRowAt(dx_rd, begin) + g * group_bytes,
            dx_rd.stride(0), partial.mutable_data_ptr<float>() + thread * width);
      }
    }
  });
  for (int64_t thread = 0; dw_d.defined() && thread < threads; ++thread) dw_d.add_(partial[thread]);
}

void Rope(const at::Tensor& in_rd, at::Tensor& out_rd, const at::Tensor& cos, const at::Tensor& sin,
          const at::Tensor& positions_r, int64_t heads, bool inverse) {
  const int64_t width = in_rd.size(-1);
  at::parallel_for(0, in_rd.size(0), Grain(width), [&](int64_t begin, int64_t end) {
    LoopsFor(in_rd).rope(RowAt(in_rd, begin), in_rd.stride(0), MutableRowAt(out_rd, begin),
                         out_rd.stride(0), cos.const_data_ptr<float>(), sin.const_data_ptr<float>(),
                         positions_r.const_data_ptr<int32_t>() + begin, end - begin, heads,
                         width / heads, inverse ? -1.0F : 1.0F);
  });
}

void SwiGlu(const at::Tensor& h_nf, const at::Tensor& scale_n, at::Tensor& a_nf) {
  const int64_t width = a_nf.size(-1);
  const float* scale = scale_n.defined() ? scale_n.const_data_ptr<float>() : nullptr;
  at::parallel_for(0, a_nf.size(0), Grain(width), [&](int64_t begin, int64_t end) {
    LoopsFor(h_nf).swiglu(RowAt(h_nf, begin), scale == nullptr ? nullptr : scale + begin,
                          end - begin, width, MutableRowAt(a_nf, begin));
  });
}

void SwiGluBackward(const at::Tensor& da_nf, at::Tensor& h_nf, const at::Tensor& scale_n,
                    at::Tensor& scaled_a_nf, at::Tensor& dscale_n) {
  const int64_t width = da_nf.size(-1);
  const float* scale = scale_n.defined() ? scale_n.const_data_ptr<float>() : nullptr;
  float* dscale = dscale_n.defined() ? dscale_n.mutable_data_ptr<float>() : nullptr;
  at::parallel_for(0, da_nf.size(0), Grain(width), [&](int64_t begin, int64_t end) {
    LoopsFor(h_nf).swiglu_backward(RowAt(da_nf, begin), MutableRowAt(h_nf, begin),
                                   scale == nullptr ? nullptr : scale + begin, end - begin, width,
                                   MutableRowAt(scaled_a_nf, begin),
                                   dscale == nullptr ? nullptr : dscale + begin);
  });
}

void Gather(const at::Tensor& in_rd, const at::Tensor& index_n, at::Tensor& out_nd) {
  const int64_t width = in_rd.size(-1);
  at::parallel_for(0, out_nd.size(0), Grain(width), [&](int64_t begin, int64_t end) {
    LoopsFor(in_rd).gather(in_rd.const_data_ptr(), index_n.const_data_ptr<int32_t>() + begin,
                           end - begin, width, MutableRowAt(out_nd, begin));
  });
}

void GatherSum(const at::Tensor& in_nd, const at::Tensor& offsets_r1, const at::Tensor& positions_n,
               at::Tensor& out_rd) {
  const int64_t width = out_rd.size(-1);
  at::parallel_for(0, out_rd.size(0), Grain(width), [&](int64_t begin, int64_t end) {
    LoopsFor(in_nd).gather_sum(in_nd.const_data_ptr(), offsets_r1.const_data_ptr<int32_t>() + begin,
                               positions_n.const_data_ptr<int32_t>(), end - begin, width,
                               MutableRowAt(out_rd, begin));
  });
}

void CrossEntropy(at::Tensor& logits_rv, const at::Tensor& labels_r, double scale,
                  at::Tensor& loss_r) {
  const int64_t width = logits_rv.size(-1);
  at::parallel_for(0, logits_rv.size(0), Grain(width), [&](int64_t begin, int64_t end) {
    LoopsFor(logits_rv).cross_entropy(
        MutableRowAt(logits_rv, begin), labels_r.const_data_ptr<int64_t>() + begin,
        static_cast<float>(scale), end - begin, width, loss_r.mutable_data_ptr<float>() + begin);
  });
}

void ScatterAdd(const at::Tensor& rows_rd, const at::Tensor& index_r, at::Tensor& target_td) {
  const int64_t width = rows_rd.size(-1);
  at::parallel_for(0, index_r.size(0), Grain(width), [&](int64_t begin, int64_t end) {
    LoopsFor(rows_rd).scatter_add(RowAt(rows_rd, begin), index_r.const_data_ptr<int64_t>() + begin,
                                  end - begin, width, target_td.mutable_data_ptr());
  });
}

}  // namespace pcmoe::model::kernels
