// pcmoe/border/rows_codec.cc: see rows_codec.h. Layout (little endian), docs/protocol.md:
//   u32 rows, u32 pairs, u8 dtype, 7 zero bytes | u8 pairs of each row | u16 expert of each pair |
//   f32 of each pair | zeros to a multiple of 64 | rows
// kExpertRows has all parts (f32: weight); kInputGradients has no counts and no experts (f32:
// dL/dweight); kExpertOutputs and kRowGradients have neither counts nor pairs.
#include "pcmoe/border/rows_codec.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_select.h>

#include <cmath>
#include <cstring>

#include "pcmoe/tensor/finite.h"

namespace pcmoe::border {
namespace {

constexpr int64_t kHeaderBytes = 16;
constexpr int64_t kAlignment = 64;

struct Layout {
  int64_t rows = 0, pairs = 0, width = 0;
  bool has_experts = false;
  at::ScalarType dtype = at::kFloat;

  int64_t CountsAt() const { return kHeaderBytes; }
  int64_t ExpertsAt() const { return CountsAt() + (has_experts ? rows : 0); }
  int64_t FloatsAt() const { return ExpertsAt() + (has_experts ? 2 * pairs : 0); }
  int64_t RowsAt() const {
    return (FloatsAt() + 4 * pairs + kAlignment - 1) / kAlignment * kAlignment;
  }
  int64_t RowBytes() const { return width * static_cast<int64_t>(c10::elementSize(dtype)); }
  int64_t Size() const { return RowsAt() + rows * RowBytes(); }
};

// An empty tensor has no address, and memcpy takes no null pointer even for nothing.
void Copy(void* to, const void* from, int64_t bytes) {
  if (bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
}

uint8_t DtypeByte(at::ScalarType dtype) { return dtype == at::kBFloat16 ? 2 : 1; }

wire::Buffer Start(const Layout& layout) {
  wire::Buffer buffer = wire::Buffer::Allocate(static_cast<size_t>(layout.Size()));
  const auto rows = static_cast<uint32_t>(layout.rows);
  const auto pairs = static_cast<uint32_t>(layout.pairs);
  uint8_t* data = buffer.writable().data();
  std::memcpy(data, &rows, 4);
  std::memcpy(data + 4, &pairs, 4);
  data[8] = DtypeByte(layout.dtype);
  return buffer;
}

// The rows' part of `buffer` as a tensor that keeps the buffer alive.
at::Tensor RowsOf(wire::Buffer& buffer, const Layout& layout) {
  void* data = buffer.writable().data() + layout.RowsAt();
  return at::from_blob(
      data, {layout.rows, layout.width}, [owner = buffer.owner()](void*) {},
      at::TensorOptions().dtype(layout.dtype));
}

void CopyRows(const at::Tensor& source_td, const at::Tensor& row_index_r, wire::Buffer& buffer,
              const Layout& layout) {
  at::Tensor rows = RowsOf(buffer, layout).narrow(0, 0, row_index_r.size(0));
  at::index_select_out(rows, source_td, 0, row_index_r);
}

absl::Status BadMessage(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("sent a message of rows ", what));
}

// Checks the header against what is allowed, before anything is touched by its numbers.
absl::StatusOr<Layout> ReadHeader(const wire::Buffer& payload, const RowLimits& limits,
                                  bool has_experts) {
  const auto bytes = payload.bytes();
  if (bytes.size() < static_cast<size_t>(kHeaderBytes)) return BadMessage("that is too short");
  uint32_t rows = 0;
  uint32_t pairs = 0;
  std::memcpy(&rows, bytes.data(), 4);
  std::memcpy(&pairs, bytes.data() + 4, 4);
  if (bytes[8] != DtypeByte(limits.dtype)) return BadMessage("of another dtype than agreed");
  if (rows > limits.max_rows) return BadMessage("with more rows than the manifest allows");
  if (pairs > static_cast<uint64_t>(rows) * static_cast<uint64_t>(limits.max_experts_per_row)) {
    return BadMessage("with more pairs than its rows can have");
  }
  const Layout layout{.rows = rows,
                      .pairs = pairs,
                      .width = limits.width,
                      .has_experts = has_experts,
                      .dtype = limits.dtype};
  if (bytes.size() != static_cast<size_t>(layout.Size())) {
    return BadMessage("whose size does not fit its counts");
  }
  return layout;
}

absl::StatusOr<at::Tensor> CheckedRows(wire::Buffer& payload, const Layout& layout) {
  at::Tensor rows = RowsOf(payload, layout);
  // A received slice starts anywhere; vector loads of floats want their own alignment at least.
  const auto address = reinterpret_cast<uintptr_t>(rows.const_data_ptr());
  if (address % c10::elementSize(layout.dtype) != 0) {
    at::Tensor aligned = at::empty({layout.rows, layout.width}, rows.options());
    Copy(aligned.mutable_data_ptr(), payload.bytes().data() + layout.RowsAt(),
         layout.rows * layout.RowBytes());
    rows = aligned;
  }
  if (!tensor::AllFinite(rows)) return BadMessage("with a value that is not finite");
  return rows;
}

}  // namespace

int64_t PaddedRows(int64_t rows) {
  int64_t rung = 2;
  while (rung * 128 <= rows) rung *= 2;
  return (rows + rung - 1) / rung * rung;
}

wire::Buffer EncodeExpertRows(const at::Tensor& source_td, const at::Tensor& row_index_r,
                              std::span<const WirePair> pairs, int64_t padded_rows) {
  const Layout layout{.rows = padded_rows,
                      .pairs = static_cast<int64_t>(pairs.size()),
                      .width = source_td.size(1),
                      .has_experts = true,
                      .dtype = source_td.scalar_type()};
  wire::Buffer buffer = Start(layout);
  uint8_t* data = buffer.writable().data();
  uint8_t* counts = data + layout.CountsAt();
  uint8_t* experts = data + layout.ExpertsAt();
  uint8_t* weights = data + layout.FloatsAt();
  for (size_t i = 0; i < pairs.size(); ++i) {
    ++counts[pairs[i].row];
    std::memcpy(experts + 2 * i, &pairs[i].expert, 2);
    std::memcpy(weights + 4 * i, &pairs[i].weight, 4);
  }
  CopyRows(source_td, row_index_r, buffer, layout);
  return buffer;
}

absl::StatusOr<ExpertRows> DecodeExpertRows(wire::Buffer payload, const RowLimits& limits) {
  PCMOE_ASSIGN_OR_RETURN(const Layout layout, ReadHeader(payload, limits, true));
  const uint8_t* data = payload.bytes().data();
  ExpertRows result;
  result.pairs.reserve(static_cast<size_t>(layout.pairs));
  int64_t at = 0;
  for (int64_t row = 0; row < layout.rows; ++row) {
    const int64_t count = data[layout.CountsAt() + row];
    if (count > limits.max_experts_per_row || at + count > layout.pairs) {
      return BadMessage("whose counts do not add up");
    }
    for (const int64_t end = at + count; at < end; ++at) {
      WirePair pair{.row = static_cast<uint32_t>(row)};
      std::memcpy(&pair.expert, data + layout.ExpertsAt() + 2 * at, 2);
      std::memcpy(&pair.weight, data + layout.FloatsAt() + 4 * at, 4);
      if (pair.expert >= limits.num_experts) return BadMessage("for an expert there is not");
      if (!std::isfinite(pair.weight)) return BadMessage("with a weight that is not finite");
      result.pairs.push_back(pair);
    }
  }
  if (at != layout.pairs) return BadMessage("whose counts do not add up");
  PCMOE_ASSIGN_OR_RETURN(result.rows_rd, CheckedRows(payload, layout));
  return result;
}

wire::Buffer EncodeRows(const at::Tensor& rows_rd) {
  const Layout layout{
      .rows = rows_rd.size(0), .width = rows_rd.size(1), .dtype = rows_rd.scalar_type()};
  wire::Buffer buffer = Start(layout);
  RowsOf(buffer, layout).copy_(rows_rd);
  return buffer;
}

wire::Buffer EncodeRowsOf(const at::Tensor& source_td, const at::Tensor& row_index_r,
                          int64_t padded_rows) {
  const Layout layout{
      .rows = padded_rows, .width = source_td.size(1), .dtype = source_td.scalar_type()};
  wire::Buffer buffer = Start(layout);
  CopyRows(source_td, row_index_r, buffer, layout);
  return buffer;
}

absl::StatusOr<at::Tensor> DecodeRows(wire::Buffer payload, int64_t expected_rows,
                                      const RowLimits& limits) {
  PCMOE_ASSIGN_OR_RETURN(const Layout layout, ReadHeader(payload, limits, false));
  if (layout.rows != expected_rows || layout.pairs != 0) {
    return BadMessage("of another shape than was asked for");
  }
  return CheckedRows(payload, layout);
}

wire::Buffer EncodeInputGradients(const at::Tensor& dx_rd, const at::Tensor& dweight_n) {
  const Layout layout{.rows = dx_rd.size(0),
                      .pairs = dweight_n.size(0),
                      .width = dx_rd.size(1),
                      .dtype = dx_rd.scalar_type()};
  wire::Buffer buffer = Start(layout);
  Copy(buffer.writable().data() + layout.FloatsAt(), dweight_n.const_data_ptr<float>(),
       4 * layout.pairs);
  RowsOf(buffer, layout).copy_(dx_rd);
  return buffer;
}

absl::StatusOr<InputGradients> DecodeInputGradients(wire::Buffer payload, int64_t expected_rows,
                                                    int64_t expected_pairs,
                                                    const RowLimits& limits) {
  PCMOE_ASSIGN_OR_RETURN(const Layout layout, ReadHeader(payload, limits, false));
  if (layout.rows != expected_rows || layout.pairs != expected_pairs) {
    return BadMessage("of another shape than was asked for");
  }
  InputGradients result;
  result.dweight_n = at::empty({layout.pairs}, at::kFloat);
  Copy(result.dweight_n.mutable_data_ptr<float>(), payload.bytes().data() + layout.FloatsAt(),
       4 * layout.pairs);
  if (!tensor::AllFinite(result.dweight_n)) return BadMessage("with a value that is not finite");
  PCMOE_ASSIGN_OR_RETURN(result.dx_rd, CheckedRows(payload, layout));
  return result;
}

}  // namespace pcmoe::border
