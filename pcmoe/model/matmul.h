// pcmoe/model/matmul.h: the three matrix products of a step, for whole backbone products (spread
// over the threads) and for one expert inside a parallel loop (one thread). fp32 goes to LibTorch;
// bfloat16 to AMX tiles where the processor has them, since LibTorch compiles a new kernel for
// every new number of rows, and an expert has a new one each time. Shape legend: M rows, K depth of
// the sum, N columns.
#pragma once

#include <ATen/core/Tensor.h>

namespace pcmoe::model {

/// "amx" or "libtorch": what computes bfloat16 products here. PCMOE_CPU=avx2 or baseline rules AMX
/// out.
std::string_view Bf16Products();

// Two-dimensional CPU tensors whose rows are dense (last stride 1), of one dtype unless said
// otherwise. Every element is summed in an order that depends on K alone, so neither other rows nor
// the number of threads change it (bfloat16 with AMX), and sums are fp32.

/// out_mn = a_mk w_nk'.
void MatmulTransposed(const at::Tensor& a_mk, const at::Tensor& w_nk, at::Tensor& out_mn);
/// out_mn = a_mk w_kn.
void Matmul(const at::Tensor& a_mk, const at::Tensor& w_kn, at::Tensor& out_mn);
/// gradient_mn (fp32) += a_km' b_kn. Without AMX a bfloat16 product is rounded before it is added.
void AddTransposedMatmul(const at::Tensor& a_km, const at::Tensor& b_kn, at::Tensor& gradient_mn);

}  // namespace pcmoe::model
