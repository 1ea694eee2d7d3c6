// pcmoe/data/batch_source.cc: see batch_source.h.
#include "pcmoe/data/batch_source.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <numeric>
#include <utility>

#include "absl/strings/str_format.h"
#include "pcmoe/base/random.h"

namespace pcmoe::data {
namespace {

constexpr int64_t kGroupsAPart = 32;  // of an epoch, sorted by itself

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

BatchSource::BatchSource(std::vector<Sequence> sequences, uint64_t seed, int64_t group)
    : sequences_(std::move(sequences)), seed_(seed), group_(group), order_(sequences_.size()) {
  Shuffle();
}

void BatchSource::Shuffle() {
  std::iota(order_.begin(), order_.end(), 0U);
  base::KeyedStream::Key key{};
  std::memcpy(key.data(), &seed_, sizeof(seed_));
  base::KeyedStream stream(key, absl::StrCat("data/epoch/", cursor_.epoch));
  // Our own Fisher-Yates: the order of std::shuffle differs between libraries.
  for (size_t i = order_.size(); i > 1; --i) std::swap(order_[i - 1], order_[stream.Below(i)]);
  if (group_ > 1) GroupByLength(stream);
}

// Sorts parts of the shuffled order by length, so that a batch holds rows of about one length and
// every epoch has other batches; then draws the order of a part's batches again, which would come
// from short to long.
void BatchSource::GroupByLength(base::KeyedStream& stream) {
  const auto most = static_cast<size_t>(kGroupsAPart * group_);
  for (size_t part = 0; part < order_.size(); part += most) {
    const auto begin = order_.begin() + static_cast<int64_t>(part);
    const auto end = begin + static_cast<int64_t>(std::min(most, order_.size() - part));
    std::stable_sort(begin, end, [this](uint32_t a, uint32_t b) {
      return sequences_[a].tokens.size() < sequences_[b].tokens.size();
    });
    for (int64_t i = (end - begin) / group_; i > 1; --i) {
      const auto a = begin + (i - 1) * group_;
      const auto b = begin + static_cast<int64_t>(stream.Below(static_cast<uint64_t>(i))) * group_;
      if (a != b) std::swap_ranges(a, a + group_, b);
    }
  }
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
