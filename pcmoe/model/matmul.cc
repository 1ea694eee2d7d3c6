// pcmoe/model/matmul.cc: see matmul.h; cuts a product into packed panels that stay in the caches.
#include "pcmoe/model/matmul.h"

#include <ATen/Parallel.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>

#include <cstdlib>
#include <memory>

#include "pcmoe/model/amx_tiles.h"
#include "pcmoe/model/kernels.h"

namespace pcmoe::model {
namespace {

using amx::kBlock;
using amx::Matrix;

// Depth and packed values of B at a time: a chunk of B is 1 MiB at most and stays in the
// second-level cache while the rows of A pass by.
constexpr int64_t kDepthChunk = 1024;
constexpr int64_t kPackedValues = 512 * 1024;

bool HasTiles() {
  static const bool kHas = kernels::ActiveLevel() == "avx512" && amx::RequestTiles();
  return kHas;
}

bool UseTiles(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == at::kBFloat16 && b.scalar_type() == at::kBFloat16 &&
         a.device().is_cpu() && a.stride(1) == 1 && b.stride(1) == 1 && HasTiles();
}

// Aligned memory that a thread keeps between products.
class Scratch {
 public:
  uint16_t* Take(int64_t values) {
    if (values > values_) {
      memory_.reset(static_cast<uint16_t*>(
          std::aligned_alloc(64, static_cast<size_t>((values * 2 + 63) / 64 * 64))));
      values_ = memory_ == nullptr ? 0 : values;
      if (memory_ == nullptr) throw std::bad_alloc();
    }
    return memory_.get();
  }

 private:
  struct Release {
    void operator()(uint16_t* memory) const { std::free(memory); }
  };
  std::unique_ptr<uint16_t, Release> memory_;
  int64_t values_ = 0;
};
thread_local Scratch t_panels;
thread_local Scratch t_rows;

// C = A B with A = a or a', B = b or b'.
struct Product {
  Matrix a, b;
  bool a_transposed = false;
  bool b_transposed = false;
  int64_t m = 0, n = 0, k = 0;
};

Matrix MatrixOf(const at::Tensor& x) {
  return {static_cast<const uint16_t*>(x.const_data_ptr()), x.stride(0)};
}

// The part of a matrix that begins at (row, column) of A or B as they are multiplied.
Matrix From(Matrix x, bool transposed, int64_t row, int64_t column) {
  return {transposed ? x.data + column * x.stride + row : x.data + row * x.stride + column,
          x.stride};
}

void PackPanels(const Product& p, uint16_t* panels) {
  const int64_t count = (p.n + kBlock - 1) / kBlock;
  const int64_t size = amx::PackedSize(kBlock, p.k);
  at::parallel_for(0, count, std::max<int64_t>(1, 16384 / size), [&](int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; ++panel) {
      const int64_t first = panel * kBlock;
      const int64_t columns = std::min(kBlock, p.n - first);
      (p.b_transposed ? amx::PackTransposedPanel : amx::PackPanel)(p.b, first, columns, p.k,
                                                                   panels + panel * size);
    }
  });
}

// All rows of A against the packed panels.
void MultiplyPanels(const Product& p, const uint16_t* panels, const amx::Output& output) {
  const int64_t blocks = (p.m + kBlock - 1) / kBlock;
  at::parallel_for(0, blocks, 2, [&](int64_t begin, int64_t end) {
    const amx::TileScope scope;
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * kBlock;
      const int64_t rows = std::min(kBlock, p.m - first);
      Matrix a{p.a.data + first * p.a.stride, p.a.stride};
      if (p.a_transposed || rows < kBlock || p.k % amx::kDepth != 0) {
        uint16_t* packed = t_rows.Take(amx::PackedSize(kBlock, p.k));
        (p.a_transposed ? amx::PackTransposedRows : amx::PackRows)(p.a, first, rows, p.k, packed);
        a = {packed, 0};
      }
      amx::Output part = output;
      if (part.sum != nullptr) part.sum += first * part.sum_stride;
      if (part.result != nullptr) part.result += first * part.stride;
      amx::MultiplyRows(a, panels, rows, p.n, p.k, part);
    }
  });
}

// Runs the product in chunks; `output` as for the whole. A depth of several chunks needs
// output.sum.
void Run(const Product& p, const amx::Output& output) {
  for (int64_t depth = 0; depth < p.k; depth += kDepthChunk) {
    const int64_t k = std::min(kDepthChunk, p.k - depth);
    const int64_t columns = std::max(kBlock, kPackedValues / amx::PackedSize(kBlock, k) * kBlock);
    for (int64_t column = 0; column < p.n; column += columns) {
      Product part = p;
      part.k = k;
      part.n = std::min(columns, p.n - column);
      part.a = From(p.a, p.a_transposed, 0, depth);
      part.b = From(p.b, p.b_transposed, depth, column);
      amx::Output out = output;
      const bool last = depth + k == p.k;
      if (out.sum != nullptr) out.sum += column;
      if (out.result != nullptr) out.result += column;
      if (!last) out.result = nullptr;
      if (depth > 0) out.add = true;
      uint16_t* panels = t_panels.Take(amx::PackedSize(part.n, k));
      PackPanels(part, panels);
      MultiplyPanels(part, panels, out);
    }
  }
}

void RunInto(const Product& p, at::Tensor& out_mn) {
  amx::Output output{.result = static_cast<uint16_t*>(out_mn.mutable_data_ptr()),
                     .stride = out_mn.stride(0)};
  at::Tensor sums;
  if (p.k > kDepthChunk) {
    sums = at::empty({p.m, p.n}, at::kFloat);
    output.sum = sums.mutable_data_ptr<float>();
    output.sum_stride = p.n;
  }
  Run(p, output);
}

bool CanWrite(const at::Tensor& out_mn) {
  return out_mn.scalar_type() == at::kBFloat16 && out_mn.stride(1) == 1;
}

}  // namespace

std::string_view Bf16Products() { return HasTiles() ? "amx" : "libtorch"; }

void MatmulTransposed(const at::Tensor& a_mk, const at::Tensor& w_nk, at::Tensor& out_mn) {
  if (!UseTiles(a_mk, w_nk) || !CanWrite(out_mn)) {
    at::mm_out(out_mn, a_mk, w_nk.t());
    return;
  }
  RunInto({.a = MatrixOf(a_mk),
           .b = MatrixOf(w_nk),
           .b_transposed = true,
           .m = a_mk.size(0),
           .n = w_nk.size(0),
           .k = a_mk.size(1)},
          out_mn);
}

void Matmul(const at::Tensor& a_mk, const at::Tensor& w_kn, at::Tensor& out_mn) {
  if (!UseTiles(a_mk, w_kn) || !CanWrite(out_mn)) {
    at::mm_out(out_mn, a_mk, w_kn);
    return;
  }
  RunInto({.a = MatrixOf(a_mk),
           .b = MatrixOf(w_kn),
           .m = a_mk.size(0),
           .n = w_kn.size(1),
           .k = a_mk.size(1)},
          out_mn);
}

void AddTransposedMatmul(const at::Tensor& a_km, const at::Tensor& b_kn, at::Tensor& gradient_mn) {
  if (a_km.scalar_type() == at::kFloat) {
    at::addmm_out(gradient_mn, gradient_mn, a_km.t(), b_kn);
    return;
  }
  if (!UseTiles(a_km, b_kn) || gradient_mn.stride(1) != 1) {
    gradient_mn.add_(at::mm(a_km.t(), b_kn));
    return;
  }
  Run({.a = MatrixOf(a_km),
       .b = MatrixOf(b_kn),
       .a_transposed = true,
       .m = a_km.size(1),
       .n = b_kn.size(1),
       .k = a_km.size(0)},
      {.sum = gradient_mn.mutable_data_ptr<float>(),
       .add = true,
       .sum_stride = gradient_mn.stride(0)});
}

}  // namespace pcmoe::model
