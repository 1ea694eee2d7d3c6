// fuzz/frame_fuzz.cc: any stream of frames is refused, or gives messages within the limit.
//
// Input: a byte of flags, then frames, each a 16-bit length and its bytes. Flag 1 makes the
// checksum of each frame right, as a fuzzer would never find it; flag 2 hands every frame over in
// two pieces.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "fuzz/check.h"
#include "pcmoe/base/digest.h"
#include "pcmoe/wire/frame.h"

namespace {

constexpr uint64_t kMaxMessageBytes = 1 << 16;
constexpr size_t kChecksumAt = 56;

// As docs/protocol.md says: the chunk's checksum stands in the header while the header is summed.
void SetChecksum(std::span<uint8_t> frame) {
  if (frame.size() < pcmoe::wire::kFrameHeaderBytes) return;
  for (const auto summed : {frame.subspan(pcmoe::wire::kFrameHeaderBytes),
                            frame.first(pcmoe::wire::kFrameHeaderBytes)}) {
    const uint64_t sum = pcmoe::base::Checksum(summed);
    std::memcpy(frame.data() + kChecksumAt, &sum, sizeof(sum));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  const uint8_t flags = data[0];
  pcmoe::wire::FrameAssembler assembler(pcmoe::wire::RunId{}, kMaxMessageBytes);
  for (size_t at = 1; at + 2 <= size;) {
    const size_t length =
        std::min<size_t>(data[at] | static_cast<size_t>(data[at + 1]) << 8, size - at - 2);
    auto frame = std::make_shared<std::vector<uint8_t>>(data + at + 2, data + at + 2 + length);
    at += 2 + length;
    if ((flags & 1) != 0) SetChecksum(*frame);
    const std::span<const uint8_t> whole(*frame);
    const std::span<const uint8_t> pieces[] = {whole.first(length / 3), whole.subspan(length / 3)};
    const auto message =
        (flags & 2) != 0
            ? assembler.Take(pieces, frame)
            : assembler.Take(std::span<const std::span<const uint8_t>>(&whole, 1), frame);
    if (!message.ok()) {
      FUZZ_CHECK(!assembler.Take(pieces, frame).ok());
      return 0;
    }
    if (message->has_value()) FUZZ_CHECK((*message)->payload.size() <= kMaxMessageBytes);
  }
  return 0;
}
