// pcmoe/wire/message.h: what parties say to each other, as bytes; docs/protocol.md has the layout.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

namespace pcmoe::border {
class EgressGate;
}

namespace pcmoe::wire {

/// Index of a party in the manifest's order.
using PartyIndex = int;

/// Every message there is. The number is the byte on the wire; never reuse one.
enum class MessageKind : uint8_t {
  kHello = 1,             ///< Rendezvous: committed step, checkpoints held, digests.
  kBegin = 2,             ///< A step starts: loss tokens, micro-batches, newest durable checkpoint.
  kExpertRows = 3,        ///< Home to owner: rows of tokens with their (expert, weight) pairs.
  kExpertOutputs = 4,     ///< Owner to home: one weighted sum a row.
  kRowGradients = 5,      ///< Home to owner: dL/dz, one row a row.
  kInputGradients = 6,    ///< Owner to home: dL/dx a row and dL/ds a (row, expert).
  kVote = 7,              ///< Finite? and the squared gradient norm of backbone and shard together.
  kAbort = 8,             ///< This attempt is void: who failed, and a reason code.
  kBye = 9,               ///< The run is complete here; nothing follows.
  kMaskKey = 10,          ///< A party's signed X25519 key for the masks of this attempt.
  kUnitWeights = 11,      ///< Owner to all: the weights of its units of a stage, one version.
  kExponents = 12,        ///< The size of this party's gradients of a stage, a byte a group.
  kMaskedGradients = 13,  ///< To an owner: gradients of its units, fixed-point, under masks.
  kMaskedCounts = 14,     ///< To all: rows per layer and expert, under masks.
  kEvaluation = 15,       ///< To all: this party's evaluation metric, for the federation's mean.
};

/// The smallest and the largest byte that is a MessageKind; all between are.
inline constexpr uint8_t kFirstMessageKind = 1;
inline constexpr uint8_t kLastMessageKind = 15;

/// "expert_rows" and so on: the name in ledgers, configs and sentences; "unknown" for other bytes.
std::string_view NameOf(MessageKind kind);

/// The kind of that name; empty when there is none.
std::optional<MessageKind> KindFromName(std::string_view name);

/// What a message belongs to. Plain data.
struct MessageHeader {
  MessageKind kind = MessageKind::kHello;
  uint64_t step = 0;
  uint32_t attempt = 0;
  uint16_t layer = 0;
  uint16_t micro_batch = 0;
  bool operator==(const MessageHeader&) const = default;
};

/// Bytes somebody keeps alive: a tensor's storage, a received slice or a vector. Copies share them.
class Buffer {
 public:
  Buffer() = default;
  /// `data` must live as long as `owner`.
  Buffer(std::shared_ptr<void> owner, std::span<uint8_t> data)
      : owner_(std::move(owner)), data_(data) {}
  /// `bytes` zero-filled bytes, aligned to 64.
  static Buffer Allocate(size_t bytes);
  std::span<const uint8_t> bytes() const { return data_; }
  std::span<uint8_t> writable() { return data_; }
  size_t size() const { return data_.size(); }
  const std::shared_ptr<void>& owner() const { return owner_; }

 private:
  std::shared_ptr<void> owner_;
  std::span<uint8_t> data_;
};

/// A message as it was received: checked for damage, not yet for meaning.
struct Message {
  MessageHeader header;
  Buffer payload;
};

/// A message that may leave. Only border::EgressGate makes one, after policy and ledger; so
/// whatever is handed to a Channel has passed the border. Movable, not copyable.
class Sealed {
 public:
  Sealed(Sealed&&) = default;
  Sealed& operator=(Sealed&&) = default;
  PartyIndex to() const { return to_; }
  const MessageHeader& header() const { return message_.header; }
  const Buffer& payload() const { return message_.payload; }

 private:
  friend class pcmoe::border::EgressGate;
  Sealed(PartyIndex to, Message message) : to_(to), message_(std::move(message)) {}
  PartyIndex to_;
  Message message_;
};

}  // namespace pcmoe::wire
