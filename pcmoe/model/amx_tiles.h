// pcmoe/model/amx_tiles.h: bfloat16 matrix products with AMX tiles, on raw memory; see matmul.h.
// Included by a file built with wide instruction sets: plain C types only.
#pragma once

#include <cstdint>

namespace pcmoe::model::amx {

/// Rows and columns of C that are computed at once, and the depth of one tile.
inline constexpr int64_t kBlock = 32;
inline constexpr int64_t kDepth = 32;

/// bfloat16 elements of `count` packed rows (or columns) of depth `k`: a panel is 32 of them.
constexpr int64_t PackedSize(int64_t count, int64_t k) {
  return (count + kBlock - 1) / kBlock * kBlock * ((k + kDepth - 1) / kDepth * kDepth);
}

/// Asks the system for the tile registers. False when the processor has none, or the system says
/// no.
bool RequestTiles();

/// A matrix by its first element (bfloat16 bits) and the elements from one row to the next.
struct Matrix {
  const uint16_t* data;
  int64_t stride;
};

/// Packs columns [first, first + count), count <= 32, of B = w' (w: [n, k]) or of B = w (w: [k, n])
/// as one panel; zeros where w ends.
void PackTransposedPanel(Matrix w_nk, int64_t first, int64_t count, int64_t k, uint16_t* panel);
void PackPanel(Matrix w_kn, int64_t first, int64_t count, int64_t k, uint16_t* panel);

/// Packs rows [first, first + count), count <= 32, of A = a, or of A = a' (a: [k, m]).
void PackRows(Matrix a_mk, int64_t first, int64_t count, int64_t k, uint16_t* block);
void PackTransposedRows(Matrix a_km, int64_t first, int64_t count, int64_t k, uint16_t* block);

/// What happens to a block of C once it is computed.
struct Output {
  float* sum = nullptr;  ///< fp32 [rows, columns]; nullptr: none
  bool add = false;      ///< The result is added to what `sum` holds.
  uint16_t* result =
      nullptr;         ///< bfloat16: the result (with what `sum` held), rounded; nullptr: none
  int64_t stride = 0;  ///< Elements from one row to the next of whichever is written.
  int64_t sum_stride = 0;
};

/// Up to 32 rows of A times `panels` packed panels of B (all of depth k) into `columns` columns of
/// C. `a`: packed rows when its stride is 0, else rows in memory, all 32 of them and k a multiple
/// of 32.
void MultiplyRows(Matrix a, const uint16_t* panels, int64_t rows, int64_t columns, int64_t k,
                  const Output& output);

/// Sets up, and releases, this thread's tiles around calls of MultiplyRows.
class TileScope {
 public:
  TileScope();
  ~TileScope();
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;
};

}  // namespace pcmoe::model::amx
