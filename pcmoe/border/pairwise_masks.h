// pcmoe/border/pairwise_masks.h: masks that cancel in the sum over the parties that agreed on them.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <unordered_set>
#include <vector>

#include "pcmoe/base/status.h"
#include "pcmoe/border/counter_stream.h"
#include "pcmoe/border/mask_keys.h"
#include "pcmoe/border/mask_loops.h"

namespace pcmoe::border {

/// What one stream masks: every field is in the cipher's counter block, `step` (48 bits) | layer |
/// unit | block (32 bits), so two different places never share a block of the stream.
struct MaskPlace {
  uint64_t step = 0;  ///< Below 2^48.
  uint16_t layer = 0;
  uint32_t unit = 0;
  bool operator==(const MaskPlace&) const = default;
};

/// Words (4 bytes) that one place can mask: 2^32 blocks of 16 bytes.
inline constexpr uint64_t kMaxMaskWords = uint64_t{1} << 34;

/// The counter block that the stream of `place` starts at. INVALID_ARGUMENT: `step` over 48 bits.
absl::StatusOr<CounterStream::Block> FirstBlockOf(const MaskPlace& place);

/// The secrets that one party shares with every other party for one attempt (DESIGN 3.3): one
/// AES-128 key a pair, HKDF-SHA256 of X25519(own, theirs) with salt run | step | attempt and info
/// label | both public keys | both indices, the lower party first. Movable; keys are wiped at the
/// end. Thread-safe after Create, but for AllowNoPeers and moves.
class PairwiseMasks {
 public:
  /// `public_keys` by party, own among them. INVALID_ARGUMENT: fewer than two parties, `self` not
  /// among them, own key not own's, two parties with the same key, or a key that agrees on zero.
  static absl::StatusOr<PairwiseMasks> Create(wire::PartyIndex self, const MaskKeyPair& own,
                                              const std::vector<MaskPublicKey>& public_keys,
                                              const MaskContext& context);
  ~PairwiseMasks();
  PairwiseMasks(PairwiseMasks&&) = default;
  PairwiseMasks& operator=(PairwiseMasks&&) = delete;

  wire::PartyIndex self() const { return self_; }
  int parties() const { return static_cast<int>(keys_.size()); }

  /// From now on an empty list of peers is no error, and masks nothing: only for a federation of
  /// two whose config says `allow_pairwise = true`.
  void AllowNoPeers() { allow_no_peers_ = true; }

  /// The key streams of `place` with `peers`, once: FAILED_PRECONDITION when this place was taken
  /// before, or a later step was. So a stream never masks two values. INVALID_ARGUMENT: a peer
  /// that is no other party or is named twice, no peers, or a step over 48 bits.
  absl::StatusOr<std::vector<CounterStream>> Take(const MaskPlace& place,
                                                  std::span<const wire::PartyIndex> peers);

 private:
  // The places of the newest step; older steps are over.
  struct Used {
    std::mutex mutex;
    uint64_t step = 0;
    std::unordered_set<uint64_t> units;
  };
  PairwiseMasks(wire::PartyIndex self, std::vector<CounterStream::Key> keys)
      : self_(self), keys_(std::move(keys)), used_(std::make_unique<Used>()) {}
  absl::Status CheckPeers(std::span<const wire::PartyIndex> peers) const;
  absl::Status MarkUsed(const MaskPlace& place);

  wire::PartyIndex self_;
  std::vector<CounterStream::Key> keys_;  // by party; own is zero and never used
  bool allow_no_peers_ = false;
  std::unique_ptr<Used> used_;
};

/// The sum over `peers` of a place's streams (added where self < peer, else subtracted), mod 2^32:
/// what a contributor adds to its values. Made block by block. Movable, not thread-safe.
class NetMask {
 public:
  static constexpr size_t kBlockWords = 2048;

  /// As PairwiseMasks::Take.
  static absl::StatusOr<NetMask> Create(PairwiseMasks& masks, const MaskPlace& place,
                                        std::span<const wire::PartyIndex> peers);
  ~NetMask();
  NetMask(NetMask&&) = default;
  NetMask& operator=(NetMask&&) = default;

  /// The next kBlockWords words, valid until the next call; 64-byte aligned. RESOURCE_EXHAUSTED
  /// after kMaxMaskWords. Fetches `ahead` meanwhile.
  absl::StatusOr<MaskPair> NextBlock(Ahead ahead = {});

 private:
  struct Blocks {
    alignas(64) std::array<uint32_t, kBlockWords> first;
    alignas(64) std::array<uint32_t, kBlockWords> second;
  };
  NetMask() = default;
  std::vector<CounterStream> streams_;
  std::vector<bool> subtract_;  // by stream
  uint64_t words_ = 0;
  std::unique_ptr<Blocks> blocks_;
};

}  // namespace pcmoe::border
