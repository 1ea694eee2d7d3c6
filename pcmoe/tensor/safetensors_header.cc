// pcmoe/tensor/safetensors_header.cc: see safetensors_header.h.
#include "pcmoe/tensor/safetensors_header.h"

#include <algorithm>
#include <array>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

namespace pcmoe::tensor {
namespace {

constexpr size_t kLengthBytes = 8;
constexpr uint64_t kMaxRank = 32;

absl::Status Bad(std::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("the safetensors header ", std::string(what)));
}

// Collects the header while the JSON is read, so that a large one is never held twice.
class HeaderHandler : public nlohmann::json_sax<nlohmann::json> {
 public:
  absl::Status error;
  SafetensorsHeader header;

  bool start_object(size_t) override {
    if (in_array_ || depth_ == 2) return Fail("nests objects too deeply");
    if (depth_ == 1) StartEntry();
    ++depth_;
    return true;
  }
  bool key(string_t& name) override {
    if (depth_ == 1) return OpenName(name);
    if (in_metadata_) {
      key_ = name;
      return header.metadata.contains(name) ? Fail("has a metadata key twice") : true;
    }
    const auto field = std::find(kFields.begin(), kFields.end(), name);
    if (field == kFields.end()) return Fail(absl::StrCat("has an unknown key in tensor ", name_));
    field_ = static_cast<size_t>(field - kFields.begin());
    if (std::exchange(seen_[field_], true)) {
      return Fail(absl::StrCat("has a key twice in tensor ", name_));
    }
    return true;
  }
  bool string(string_t& text) override {
    if (depth_ == 2 && in_metadata_) {
      header.metadata.emplace(std::move(key_), std::move(text));
      return true;
    }
    if (depth_ != 2 || field_ != kDtype || in_array_) return Unexpected();
    entry_.dtype = std::move(text);
    return true;
  }
  bool start_array(size_t) override {
    if (depth_ != 2 || in_metadata_ || in_array_ || field_ == kDtype) return Unexpected();
    in_array_ = true;
    return true;
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (!in_array_) return Unexpected();
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return Fail(absl::StrCat("has a number too large in tensor ", name_));
    }
    if (field_ == kShape) {
      if (entry_.shape.size() == kMaxRank) return Fail("has a tensor of too many dimensions");
      entry_.shape.push_back(static_cast<int64_t>(value));
      return true;
    }
    if (offsets_ == 2) return Fail(absl::StrCat("has more than two offsets in tensor ", name_));
    (offsets_++ == 0 ? entry_.begin : entry_.end) = value;
    return true;
  }
  bool end_array() override {
    in_array_ = false;
    return true;
  }
  bool end_object() override {
    --depth_;
    if (depth_ == 0) return true;
    if (std::exchange(in_metadata_, false)) return true;
    if (!seen_[kDtype] || !seen_[kShape] || offsets_ != 2) {
      return Fail(absl::StrCat("lacks dtype, shape or data_offsets of tensor ", name_));
    }
    header.tensors.emplace(std::move(name_), std::move(entry_));
    return true;
  }
  bool null() override { return Unexpected(); }
  bool boolean(bool) override { return Unexpected(); }
  bool number_integer(number_integer_t) override { return Unexpected(); }
  bool number_float(number_float_t, const string_t&) override { return Unexpected(); }
  bool binary(binary_t&) override { return Unexpected(); }
  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    return Fail(absl::StrCat("is not valid JSON at its byte ", position));
  }

 private:
  enum Field : size_t { kDtype, kShape, kOffsets };
  static constexpr std::array<std::string_view, 3> kFields{"dtype", "shape", "data_offsets"};

  bool Fail(std::string_view what) {
    if (error.ok()) error = Bad(what);
    return false;
  }
  bool Unexpected() {
    return Fail(depth_ == 2 ? absl::StrCat("has a value of the wrong kind in ", name_)
                            : std::string("is not an object of objects"));
  }
  bool OpenName(string_t& name) {
    if (name == "__metadata__") {
      in_metadata_ = true;
      if (std::exchange(seen_metadata_, true)) return Fail("has __metadata__ twice");
    } else if (header.tensors.contains(name)) {
      return Fail(absl::StrCat("names the tensor ", name, " twice"));
    }
    name_ = std::move(name);
    return true;
  }
  void StartEntry() {
    entry_ = {};
    seen_ = {};
    offsets_ = 0;
    field_ = kDtype;
  }

  int depth_ = 0;
  bool in_array_ = false, in_metadata_ = false, seen_metadata_ = false;
  std::string name_, key_;
  TensorEntry entry_;
  std::array<bool, 3> seen_{};
  size_t field_ = kDtype;
  int offsets_ = 0;
};

// Shape times dtype, or an error when that is no 63-bit number.
absl::StatusOr<uint64_t> BytesOf(const std::string& name, const TensorEntry& entry) {
  uint64_t bytes = DtypeBytes(entry.dtype);
  if (bytes == 0) return Bad(absl::StrCat("has the unknown dtype ", entry.dtype, " in ", name));
  for (const int64_t size : entry.shape) {
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(size), &bytes) ||
        bytes > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return Bad(absl::StrCat("has a shape too large in tensor ", name));
    }
  }
  return bytes;
}

// The tensors, in the order of their bytes, must tile the data.
absl::Status CheckLayout(const SafetensorsHeader& header, uint64_t data_bytes) {
  std::vector<const std::pair<const std::string, TensorEntry>*> order;
  order.reserve(header.tensors.size());
  for (const auto& item : header.tensors) order.push_back(&item);
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return std::pair(a->second.begin, a->second.end) < std::pair(b->second.begin, b->second.end);
  });
  uint64_t position = 0;
  for (const auto* item : order) {
    const auto& [name, entry] = *item;
    PCMOE_ASSIGN_OR_RETURN(const uint64_t bytes, BytesOf(name, entry));
    if (entry.begin != position || entry.end < entry.begin || entry.end > data_bytes) {
      return Bad(absl::StrCat("gives tensor ", name,
                              " bytes that overlap others, leave a hole or "
                              "lie outside the file"));
    }
    if (entry.end - entry.begin != bytes) {
      return Bad(absl::StrCat("gives tensor ", name, " ", entry.end - entry.begin,
                              " bytes; its shape and dtype need ", bytes));
    }
    position = entry.end;
  }
  if (position != data_bytes) {
    return Bad(absl::StrCat("covers ", position, " of the file's ", data_bytes, " data bytes"));
  }
  return absl::OkStatus();
}

}  // namespace

uint64_t DtypeBytes(std::string_view dtype) {
  constexpr std::array<std::pair<std::string_view, uint64_t>, 16> kSizes{{
      {"F64", 8},
      {"I64", 8},
      {"U64", 8},
      {"C64", 8},
      {"F32", 4},
      {"I32", 4},
      {"U32", 4},
      {"F16", 2},
      {"BF16", 2},
      {"I16", 2},
      {"U16", 2},
      {"I8", 1},
      {"U8", 1},
      {"BOOL", 1},
      {"F8_E4M3", 1},
      {"F8_E5M2", 1},
  }};
  for (const auto& [name, bytes] : kSizes) {
    if (name == dtype) return bytes;
  }
  return 0;
}

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(std::span<const uint8_t> file) {
  if (file.size() < kLengthBytes) return Bad("is cut off: the file has less than 8 bytes");
  uint64_t length = 0;
  for (size_t i = kLengthBytes; i-- > 0;) length = length << 8 | file[i];
  if (length > kMaxHeaderBytes) return Bad(absl::StrCat("claims ", length, " bytes; too many"));
  if (length > file.size() - kLengthBytes) return Bad("is cut off: the file ends inside it");
  const auto text = file.subspan(kLengthBytes, static_cast<size_t>(length));
  if (text.empty() || text.front() != '{') return Bad("does not begin with '{'");
  HeaderHandler handler;
  if (!nlohmann::json::sax_parse(text.begin(), text.end(), &handler)) {
    return handler.error.ok() ? Bad("cannot be read") : handler.error;
  }
  const uint64_t data_start = kLengthBytes + length;
  PCMOE_RETURN_IF_ERROR(CheckLayout(handler.header, file.size() - data_start));
  for (auto& [name, entry] : handler.header.tensors) {
    entry.begin += data_start;
    entry.end += data_start;
  }
  return std::move(handler.header);
}

std::string EncodeSafetensorsHeader(const std::vector<std::pair<std::string, TensorEntry>>& tensors,
                                    const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header;
  header["__metadata__"] = metadata;
  for (const auto& [name, entry] : tensors) {
    header[name] = {
        {"dtype", entry.dtype}, {"shape", entry.shape}, {"data_offsets", {entry.begin, entry.end}}};
  }
  std::string text = header.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  text.append((kLengthBytes - text.size() % kLengthBytes) % kLengthBytes, ' ');
  std::string bytes(kLengthBytes, '\0');
  for (size_t i = 0; i < kLengthBytes; ++i) {
    bytes[i] = static_cast<char>(text.size() >> (8 * i) & 0xff);
  }
  return bytes + text;
}

}  // namespace pcmoe::tensor
