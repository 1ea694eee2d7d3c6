// tests/federation/misdeeds.h: what a hostile peer does to one message, and who must be blamed.
#pragma once

#include <algorithm>
#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "pcmoe/exchange/session/session.h"
#include "tampering_channel.h"

namespace pcmoe::testing_federation {

/// Something that party b does wrong, in one step.
struct Misdeed {
  std::string name;
  wire::MessageKind kind;  ///< Of the message that is replaced.
  std::function<std::vector<Draft>(const Draft&)> replace;
  exchange::AbortReason reason;
  int culprit = 1;         ///< Party b.
  std::string words = "";  ///< In the sentence.
  uint64_t step = 2;
};

inline wire::Buffer Copy(const wire::Buffer& buffer, size_t size) {
  wire::Buffer copy = wire::Buffer::Allocate(size);
  std::memcpy(copy.writable().data(), buffer.bytes().data(), std::min(size, buffer.size()));
  return copy;
}

/// A copy with `value` at byte `at`.
template <typename Value>
wire::Buffer With(const wire::Buffer& buffer, size_t at, Value value) {
  wire::Buffer copy = Copy(buffer, buffer.size());
  std::memcpy(copy.writable().data() + at, &value, sizeof(value));
  return copy;
}

/// The payload is changed, the rest stays.
inline Misdeed Payload(std::string name, wire::MessageKind kind,
                       std::function<wire::Buffer(const wire::Buffer&)> change,
                       exchange::AbortReason reason = exchange::AbortReason::kBadMessage) {
  return {std::move(name), kind,
          [change](const Draft& draft) -> std::vector<Draft> {
            return {{draft.first, change(draft.second)}};
          },
          reason};
}

template <typename Value>
auto LastIs(Value value) {
  return [value](const wire::Buffer& b) { return With(b, b.size() - sizeof(Value), value); };
}

inline auto Longer(int64_t by) {
  return [by](const wire::Buffer& b) {
    return Copy(b, static_cast<size_t>(static_cast<int64_t>(b.size()) + by));
  };
}

/// Party b stops talking, to all and for good, from its first message of this kind on.
inline Misdeed Silence(wire::MessageKind kind, uint64_t step = 2) {
  Misdeed misdeed{"silence_instead_of_" + std::string(NameOf(kind)), kind,
                  [](const Draft&) { return std::vector<Draft>(); },
                  exchange::AbortReason::kTimeout};
  misdeed.step = step;
  return misdeed;
}

/// Does the misdeed to party a alone; silence to all.
inline Tamper Doing(const Misdeed& misdeed) {
  return [&misdeed, silent = false](wire::PartyIndex to, const Draft& draft) mutable {
    const bool here = draft.first.step == misdeed.step && draft.first.kind == misdeed.kind;
    if (misdeed.reason == exchange::AbortReason::kTimeout) {
      silent = silent || here;
      return silent ? std::vector<Draft>() : std::vector<Draft>{draft};
    }
    return here && to == 0 ? misdeed.replace(draft) : std::vector<Draft>{draft};
  };
}

// An honest party must be heard within it, however slowly a sanitizer lets it compute.
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
inline constexpr absl::Duration kShortTimeout = absl::Seconds(10);
#else
inline constexpr absl::Duration kShortTimeout = absl::Seconds(1);
#endif

}  // namespace pcmoe::testing_federation
