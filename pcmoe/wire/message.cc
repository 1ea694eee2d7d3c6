// pcmoe/wire/message.cc: see message.h.
#include "pcmoe/wire/message.h"

#include <cstdlib>
#include <new>

namespace pcmoe::wire {

std::string_view NameOf(MessageKind kind) {
  switch (kind) {
    case MessageKind::kHello:
      return "hello";
    case MessageKind::kBegin:
      return "begin";
    case MessageKind::kExpertRows:
      return "expert_rows";
    case MessageKind::kExpertOutputs:
      return "expert_outputs";
    case MessageKind::kRowGradients:
      return "row_gradients";
    case MessageKind::kInputGradients:
      return "input_gradients";
    case MessageKind::kVote:
      return "vote";
    case MessageKind::kAbort:
      return "abort";
    case MessageKind::kBye:
      return "bye";
    case MessageKind::kMaskKey:
      return "mask_key";
    case MessageKind::kUnitWeights:
      return "unit_weights";
    case MessageKind::kExponents:
      return "exponents";
    case MessageKind::kMaskedGradients:
      return "masked_gradients";
    case MessageKind::kMaskedCounts:
      return "masked_counts";
    case MessageKind::kEvaluation:
      return "evaluation";
  }
  return "unknown";
}

std::optional<MessageKind> KindFromName(std::string_view name) {
  for (uint8_t byte = kFirstMessageKind; byte <= kLastMessageKind; ++byte) {
    if (NameOf(static_cast<MessageKind>(byte)) == name) return static_cast<MessageKind>(byte);
  }
  return std::nullopt;
}

Buffer Buffer::Allocate(size_t bytes) {
  constexpr size_t kAlignment = 64;
  // calloc, not aligned_alloc: fresh pages are zero already and are not touched before use, so a
  // large message that is announced but never sent costs no memory.
  void* block = std::calloc(bytes + kAlignment, 1);
  if (block == nullptr) throw std::bad_alloc();
  std::shared_ptr<void> owner(block, &std::free);
  const auto address = reinterpret_cast<uintptr_t>(block);
  const size_t shift = (kAlignment - address % kAlignment) % kAlignment;
  return Buffer(std::move(owner), {static_cast<uint8_t*>(block) + shift, bytes});
}

}  // namespace pcmoe::wire
