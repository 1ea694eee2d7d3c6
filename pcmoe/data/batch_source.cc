// pcmoe/data/batch_source.cc: see batch_source.h.
#include "pcmoe/data/batch_source.h"

#include <cstring>
#include <nlohmann/json.hpp>
#include <numeric>
#include <utility>

#include "absl/strings/str_format.h"
#include "pcmoe/base/random.h"

namespace pcmoe::data {
namespace {

absl::StatusOr<int64_t> WholeNumber(const nlohmann::json& json, const char* key) {
  const auto found = json.find(key);
  if (found == json.end() || !found->is_number_unsigned() ||
      found->get<uint64_t>() > uint64_t{1} << 53) {
    return absl::InvalidArgumentError(
        absl::StrCat("the data cursor's '", key, "' is not a whole number"));
  }
  return found->get<int64_t>();
}

}  // namespace

std::string Cursor::ToJson() const {
  return absl::StrFormat("{\"epoch\": %d, \"position\": %d}", epoch, position);
}

absl::StatusOr<Cursor> Cursor::FromJson(std::string_view json) {
  const nlohmann::json parsed = nlohmann::json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (parsed.is_discarded() || !parsed.is_object() || parsed.size() != 2) {
    return absl::InvalidArgumentError("the data cursor is not an object of epoch and position");
  }
  Cursor cursor;
  PCMOE_ASSIGN_OR_RETURN(cursor.epoch, WholeNumber(parsed, "epoch"));
  PCMOE_ASSIGN_OR_RETURN(cursor.position, WholeNumber(parsed, "position"));
  return cursor;
}

BatchSource::BatchSource(std::vector<Sequence> sequences, uint64_t seed)
    : sequences_(std::move(sequences)), seed_(seed), order_(sequences_.size()) {
  Shuffle();
}

void BatchSource::Shuffle() {
  std::iota(order_.begin(), order_.end(), 0U);
  base::KeyedStream::Key key{};
  std::memcpy(key.data(), &seed_, sizeof(seed_));
  base::KeyedStream stream(key, absl::StrCat("data/epoch/", cursor_.epoch));
  // Our own Fisher-Yates: the order of std::shuffle differs between libraries.
  for (size_t i = order_.size(); i > 1; --i) std::swap(order_[i - 1], order_[stream.Below(i)]);
}

std::vector<const Sequence*> BatchSource::Next(int64_t count) {
  std::vector<const Sequence*> batch;
  if (sequences_.empty() || count <= 0) return batch;
  batch.reserve(count);
  for (int64_t i = 0; i < count; ++i) {
    if (cursor_.position == size()) {
      cursor_ = {cursor_.epoch + 1, 0};
      Shuffle();
    }
    batch.push_back(&sequences_[order_[cursor_.position++]]);
  }
  return batch;
}

absl::Status BatchSource::Seek(const Cursor& cursor) {
  if (cursor.epoch < 0 || cursor.position < 0 || cursor.position > size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the data cursor stands at sequence ", cursor.position, " of epoch ",
                     cursor.epoch, ", but there are ", size(), " sequences; is it other data?"));
  }
  cursor_ = cursor;
  Shuffle();
  return absl::OkStatus();
}

}  // namespace pcmoe::data
