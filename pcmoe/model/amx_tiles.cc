// pcmoe/model/amx_tiles.cc: see amx_tiles.h. Tiles 0-3 hold a 32 x 32 block of C, 4-5 rows of A,
// 6-7 columns of B. A tile of A is 16 rows of 32 consecutive k; a tile of B is 16 pairs of k, each
// with 16 columns of two values, which is the transpose of A's in units of two values.
#include "pcmoe/model/amx_tiles.h"

#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace pcmoe::model::amx {
namespace {

constexpr int64_t kTileValues = 16 * 32;  // 1 KiB
constexpr int64_t kHalf = 16;

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// In memory that exists before the program starts: GCC 12's intrinsic names only the first 8 bytes
// as read, and stores to the rest of a local one are dropped.
constexpr TileConfig kConfig;

__mmask16 Mask(int64_t count) {
  if (count <= 0) return 0;
  return static_cast<__mmask16>(count >= kHalf ? 0xffffU : (1U << count) - 1U);
}

__mmask32 Mask32(int64_t count) {
  if (count <= 0) return 0;
  return static_cast<__mmask32>(count >= 32 ? 0xffffffffU : (1U << count) - 1U);
}

// 16 rows of 16 32-bit values become 16 columns.
void Transpose(__m512i r[16]) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
    r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
  }
}

// 16 rows of 32 values at `from`; zeros beyond `rows` and `values`.
void LoadRows(const uint16_t* from, int64_t stride, int64_t rows, int64_t values, __m512i r[16]) {
  const __mmask32 mask = Mask32(values);
  for (int i = 0; i < 16; ++i) {
    r[i] = i < rows ? _mm512_maskz_loadu_epi16(mask, from + i * stride) : _mm512_setzero_si512();
  }
}

// 16 pairs of rows, 16 columns: value j of row 2i below value j of row 2i + 1.
void LoadPairs(const uint16_t* from, int64_t stride, int64_t rows, int64_t columns, __m512i r[16]) {
  const __mmask16 mask = Mask(columns);
  for (int i = 0; i < 16; ++i) {
    const uint16_t* row = from + 2 * i * stride;
    const __m256i even =
        2 * i < rows ? _mm256_maskz_loadu_epi16(mask, row) : _mm256_setzero_si256();
    const __m256i odd =
        2 * i + 1 < rows ? _mm256_maskz_loadu_epi16(mask, row + stride) : _mm256_setzero_si256();
    r[i] = _mm512_or_si512(_mm512_cvtepu16_epi32(even),
                           _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16));
  }
}

void StoreTile(const __m512i r[16], uint16_t* tile) {
  for (int i = 0; i < 16; ++i) _mm512_store_si512(tile + i * 32, r[i]);
}

// Where the tile loads of A begin, and how far they are apart, in elements.
struct RowTiles {
  const uint16_t* first;
  const uint16_t* second;
  int64_t stride;
  int64_t step;
};

void MultiplyBlock(const RowTiles& a, const uint16_t* panel, int64_t k, float* c) {
  __asm__ volatile("" ::: "memory");  // the tile loads do not say that they read memory
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  const auto stride = static_cast<long>(a.stride * 2);
  const uint16_t* first = a.first;
  const uint16_t* second = a.second;
  for (int64_t depth = 0; depth < k; depth += kDepth) {
    _tile_loadd(4, first, stride);
    _tile_loadd(6, panel, 64);
    _tile_loadd(7, panel + kTileValues, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, second, stride);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
    first += a.step;
    second += a.step;
    panel += 2 * kTileValues;
  }
  _tile_stored(0, c, 128);
  _tile_stored(1, c + 16, 128);
  _tile_stored(2, c + 16 * 32, 128);
  _tile_stored(3, c + 16 * 32 + 16, 128);
}

void Finish(const float* c, int64_t rows, int64_t columns, int64_t column, const Output& output) {
  for (int64_t row = 0; row < rows; ++row, c += kBlock) {
    for (int64_t half = 0; half < 2; ++half) {
      const __mmask16 mask = Mask(columns - half * kHalf);
      __m512 value = _mm512_load_ps(c + half * kHalf);
      const int64_t at = column + half * kHalf;
      if (output.sum != nullptr) {
        float* sum = output.sum + row * output.sum_stride + at;
        if (output.add) value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, sum));
        if (output.result == nullptr) _mm512_mask_storeu_ps(sum, mask, value);
      }
      if (output.result != nullptr) {
        const auto rounded = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(value));
        _mm256_mask_storeu_epi16(output.result + row * output.stride + at, mask, rounded);
      }
    }
  }
}

}  // namespace

bool RequestTiles() {
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  const bool tiles = ((d >> 22) & 1U) != 0 && ((d >> 24) & 1U) != 0;
  if (!tiles || __get_cpuid_count(7, 1, &a, &b, &c, &d) == 0 || ((a >> 5) & 1U) == 0) return false;
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
  return ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

void PackTransposedPanel(Matrix w_nk, int64_t first, int64_t count, int64_t k, uint16_t* panel) {
  __m512i r[16];
  for (int64_t depth = 0; depth < k; depth += kDepth) {
    for (int64_t half = 0; half < kBlock; half += kHalf, panel += kTileValues) {
      LoadRows(w_nk.data + (first + half) * w_nk.stride + depth, w_nk.stride, count - half,
               k - depth, r);
      Transpose(r);
      StoreTile(r, panel);
    }
  }
}

void PackPanel(Matrix w_kn, int64_t first, int64_t count, int64_t k, uint16_t* panel) {
  __m512i r[16];
  for (int64_t depth = 0; depth < k; depth += kDepth) {
    for (int64_t half = 0; half < kBlock; half += kHalf, panel += kTileValues) {
      LoadPairs(w_kn.data + depth * w_kn.stride + first + half, w_kn.stride, k - depth,
                count - half, r);
      StoreTile(r, panel);
    }
  }
}

void PackRows(Matrix a_mk, int64_t first, int64_t count, int64_t k, uint16_t* block) {
  __m512i r[16];
  for (int64_t depth = 0; depth < k; depth += kDepth) {
    for (int64_t half = 0; half < kBlock; half += kHalf, block += kTileValues) {
      LoadRows(a_mk.data + (first + half) * a_mk.stride + depth, a_mk.stride, count - half,
               k - depth, r);
      StoreTile(r, block);
    }
  }
}

void PackTransposedRows(Matrix a_km, int64_t first, int64_t count, int64_t k, uint16_t* block) {
  __m512i r[16];
  for (int64_t depth = 0; depth < k; depth += kDepth) {
    for (int64_t half = 0; half < kBlock; half += kHalf, block += kTileValues) {
      LoadPairs(a_km.data + depth * a_km.stride + first + half, a_km.stride, k - depth,
                count - half, r);
      Transpose(r);
      StoreTile(r, block);
    }
  }
}

void MultiplyRows(Matrix a, const uint16_t* panels, int64_t rows, int64_t columns, int64_t k,
                  const Output& output) {
  alignas(64) float c[kBlock * kBlock];
  const RowTiles tiles = a.stride == 0
                             ? RowTiles{a.data, a.data + kTileValues, 32, 2 * kTileValues}
                             : RowTiles{a.data, a.data + kHalf * a.stride, a.stride, kDepth};
  for (int64_t column = 0; column < columns; column += kBlock) {
    MultiplyBlock(tiles, panels, k, c);
    const int64_t left = columns - column;
    Finish(c, rows, left < kBlock ? left : kBlock, column, output);
    panels += PackedSize(kBlock, k);
  }
}

TileScope::TileScope() { _tile_loadconfig(&kConfig); }
TileScope::~TileScope() { _tile_release(); }

}  // namespace pcmoe::model::amx
