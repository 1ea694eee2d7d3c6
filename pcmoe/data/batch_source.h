// pcmoe/data/batch_source.h: sequences in a seeded order, epoch after epoch, from any point on.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "pcmoe/base/random.h"
#include "pcmoe/data/packing.h"

namespace pcmoe::data {

/// Where a BatchSource stands: all that a checkpoint has to keep. `position` counts the sequences
/// of the epoch that were given out.
struct Cursor {
  int64_t epoch = 0;
  int64_t position = 0;

  /// {"epoch": 0, "position": 0}, and back; INVALID_ARGUMENT for anything else.
  std::string ToJson() const;
  static absl::StatusOr<Cursor> FromJson(std::string_view json);
  bool operator==(const Cursor&) const = default;
};

/// Gives sequences out for training. The order of an epoch depends on (seed, epoch) and the number
/// of sequences alone. Const use is thread-safe.
class BatchSource {
 public:
  /// `sequences` may be empty: a party without data. With `group` > 1 the sequences of every
  /// `group` in a row are of about one length (rows of different lengths are padded to the longest
  /// of a batch).
  BatchSource(std::vector<Sequence> sequences, uint64_t seed, int64_t group = 1);

  /// The next `count` sequences; an epoch that ends within is followed by the next one. Empty when
  /// there are no sequences at all. Pointers live as long as this object.
  std::vector<const Sequence*> Next(int64_t count);

  Cursor cursor() const { return cursor_; }
  /// Continues where another source of the same data and seed stood. INVALID_ARGUMENT when the
  /// cursor is not one of a source of this size.
  absl::Status Seek(const Cursor& cursor);

  int64_t size() const { return static_cast<int64_t>(sequences_.size()); }
  bool empty() const { return sequences_.empty(); }
  /// All sequences in file order, once: what evaluation runs over.
  const std::vector<Sequence>& all() const { return sequences_; }

 private:
  void Shuffle();
  void GroupByLength(base::KeyedStream& stream);

  std::vector<Sequence> sequences_;
  uint64_t seed_;
  int64_t group_;
  Cursor cursor_;
  std::vector<uint32_t> order_;  // Of the cursor's epoch.
};

}  // namespace pcmoe::data
