// pcmoe/wire/frame_test.cc: messages survive the frames; every malformed frame is a status.
#include "pcmoe/wire/frame.h"

#include <functional>
#include <random>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pcmoe::wire {
namespace {

using testing::HasSubstr;

constexpr RunId kRun = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
constexpr MessageHeader kHeader = {MessageKind::kExpertRows, 0x0102030405060708, 9, 10, 11};

Buffer Pattern(size_t bytes, uint32_t seed = 1) {
  Buffer buffer = Buffer::Allocate(bytes);
  std::minstd_rand random(seed);
  for (uint8_t& byte : buffer.writable()) byte = static_cast<uint8_t>(random() >> 8);
  return buffer;
}

std::vector<std::vector<uint8_t>> FramesOf(const MessageHeader& header, const Buffer& payload) {
  std::vector<std::vector<uint8_t>> frames;
  FrameEncoder encoder(kRun, header, payload.bytes());
  while (const auto frame = encoder.Next()) {
    std::vector<uint8_t>& bytes = frames.emplace_back(frame->header.begin(), frame->header.end());
    bytes.insert(bytes.end(), frame->chunk.begin(), frame->chunk.end());
  }
  return frames;
}

absl::StatusOr<std::optional<Message>> TakeOne(FrameAssembler& assembler,
                                               std::span<const uint8_t> frame) {
  const std::span<const uint8_t> pieces[] = {frame};
  return assembler.Take(pieces, nullptr);
}

bool SameBytes(std::span<const uint8_t> a, std::span<const uint8_t> b) {
  return std::ranges::equal(a, b);
}

TEST(MessageTest, EveryKindHasANameOfItsOwn) {
  std::set<std::string_view> names;
  for (int kind = kFirstMessageKind; kind <= kLastMessageKind; ++kind) {
    names.insert(NameOf(static_cast<MessageKind>(kind)));
  }
  EXPECT_EQ(names.size(), size_t{kLastMessageKind});
  EXPECT_FALSE(names.contains("unknown"));
  EXPECT_EQ(NameOf(static_cast<MessageKind>(kLastMessageKind + 1)), "unknown");
}

TEST(MessageTest, AllocatedBuffersAreZeroAndAligned) {
  const Buffer buffer = Buffer::Allocate(1000);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.bytes().data()) % 64, 0U);
  EXPECT_TRUE(std::ranges::all_of(buffer.bytes(), [](uint8_t byte) { return byte == 0; }));
  EXPECT_EQ(Buffer::Allocate(0).size(), 0U);
}

class RoundTripTest : public testing::TestWithParam<size_t> {};

TEST_P(RoundTripTest, GivesHeaderAndPayloadBackAndCountsItsBytes) {
  const Buffer payload = Pattern(GetParam());
  const auto frames = FramesOf(kHeader, payload);
  FrameAssembler assembler(kRun, GetParam());

  uint64_t bytes = 0;
  for (size_t i = 0; i < frames.size(); ++i) {
    bytes += frames[i].size();
    auto message = TakeOne(assembler, frames[i]);
    ASSERT_TRUE(message.ok()) << message.status();
    ASSERT_EQ(message->has_value(), i + 1 == frames.size());
    if (!message->has_value()) continue;
    EXPECT_EQ((*message)->header, kHeader);
    EXPECT_TRUE(SameBytes((*message)->payload.bytes(), payload.bytes()));
    EXPECT_EQ(reinterpret_cast<uintptr_t>((*message)->payload.bytes().data()) % kPayloadAlignment,
              0U);
  }
  EXPECT_EQ(bytes, FramedBytes(GetParam()));
}

INSTANTIATE_TEST_SUITE_P(Sizes, RoundTripTest,
                         testing::Values(0, 1, 63, 64, 65, 4095, kMaxChunkBytes - 1, kMaxChunkBytes,
                                         kMaxChunkBytes + 1, 3 * kMaxChunkBytes,
                                         3 * kMaxChunkBytes + 17));

TEST(FrameTest, HeaderLayoutIsTheDocumentedOne) {
  const auto frames = FramesOf(kHeader, Buffer::Allocate(5));
  const std::vector<uint8_t> expected = {
      'P', 'C', 'M', 'F', 1,  3, 0,  0,  // magic, version, kind, flags
      1,   2,   3,   4,   5,  6, 7,  8, 9, 10, 11, 12,
      13,  14,  15,  16,  8,  7, 6,  5, 4, 3,  2,  1,  // step
      9,   0,   0,   0,   10, 0, 11, 0, 5, 0,  0,  0,
      0,   0,   0,   0,   0,  0, 0,  0, 0, 0,  0,  0};
  ASSERT_EQ(frames.size(), 1U);
  EXPECT_EQ(std::vector<uint8_t>(frames[0].begin(), frames[0].begin() + 56), expected);
}

TEST(FrameTest, FramesInManyPiecesAreTheSameMessage) {
  const Buffer payload = Pattern(kMaxChunkBytes + 1000);
  FrameAssembler assembler(kRun, payload.size());
  std::mt19937 random(3);
  std::optional<Message> whole;
  for (const auto& frame : FramesOf(kHeader, payload)) {
    std::vector<std::span<const uint8_t>> pieces;
    std::span<const uint8_t> rest(frame);
    while (!rest.empty()) {
      const size_t take =
          std::min<size_t>(rest.size(), random() % (pieces.size() < 8 ? 20 : 90000));
      pieces.push_back(rest.first(take));
      rest = rest.subspan(take);
    }
    auto message = assembler.Take(pieces, nullptr);
    ASSERT_TRUE(message.ok()) << message.status();
    if (message->has_value()) whole = std::move(**message);
  }
  ASSERT_TRUE(whole.has_value());
  EXPECT_TRUE(SameBytes(whole->payload.bytes(), payload.bytes()));
}

TEST(FrameTest, AWholeAlignedFrameIsKeptNotCopied) {
  const auto frames = FramesOf(kHeader, Pattern(100));
  Buffer received = Buffer::Allocate(frames[0].size());
  std::ranges::copy(frames[0], received.writable().begin());
  const std::span<const uint8_t> pieces[] = {received.bytes()};
  FrameAssembler assembler(kRun, 100);
  const auto message = assembler.Take(pieces, received.owner());
  ASSERT_TRUE(message.ok() && message->has_value());
  EXPECT_EQ((*message)->payload.bytes().data(), received.bytes().data() + kFrameHeaderBytes);
  EXPECT_EQ((*message)->payload.owner(), received.owner());
}

TEST(FrameTest, FlippingAnyBitOfAFrameIsNoticed) {
  const auto frame = FramesOf(kHeader, Pattern(40)).front();
  for (size_t bit = 0; bit < 8 * frame.size(); ++bit) {
    std::vector<uint8_t> damaged = frame;
    damaged[bit / 8] = static_cast<uint8_t>(damaged[bit / 8] ^ (1 << (bit % 8)));
    FrameAssembler assembler(kRun, 1 << 20);
    EXPECT_FALSE(TakeOne(assembler, damaged).ok()) << "bit " << bit;
  }
}

struct Malformed {
  const char* name;
  size_t at;
  uint8_t value;
  const char* sentence;
};

TEST(FrameTest, MalformedHeadersAreRefusedWithTheirReason) {
  const auto frame = FramesOf(kHeader, Pattern(40)).front();
  const Malformed cases[] = {
      {"magic", 0, 'X', "not a pcmoe frame"},
      {"version", 4, 9, "another version"},
      {"kind 0", 5, 0, "unknown kind"},
      {"a kind too many", 5, kLastMessageKind + 1, "unknown kind"},
      {"flags", 7, 1, "unknown flags"},
      {"run", 9, 99, "another manifest"},
      {"total", 47, 0xFF, "larger than limits."},
      {"total off by one", 40, 41, "truncated"},
      {"offset", 48, 1, "out of order"},
      {"checksum", 60, 0, "damaged"},
  };
  for (const Malformed& malformed : cases) {
    std::vector<uint8_t> bytes = frame;
    bytes[malformed.at] = malformed.value;
    FrameAssembler assembler(kRun, 1 << 20);
    const auto result = TakeOne(assembler, bytes);
    ASSERT_FALSE(result.ok()) << malformed.name;
    EXPECT_THAT(std::string(result.status().message()), HasSubstr(malformed.sentence))
        << malformed.name;
    EXPECT_FALSE(TakeOne(assembler, frame).ok()) << "a failed assembler must stay failed";
  }
}

TEST(FrameTest, TruncatedAndOverlongFramesAreRefused) {
  const auto frame = FramesOf(kHeader, Pattern(40)).front();
  for (size_t size = 0; size < frame.size(); ++size) {
    FrameAssembler assembler(kRun, 1 << 20);
    EXPECT_FALSE(TakeOne(assembler, std::span(frame).first(size)).ok()) << size;
  }
  std::vector<uint8_t> longer = frame;
  longer.push_back(0);
  FrameAssembler assembler(kRun, 1 << 20);
  EXPECT_FALSE(TakeOne(assembler, longer).ok());
  EXPECT_FALSE(assembler.Take({}, nullptr).ok());
}

TEST(FrameTest, ChunksMustFollowEachOther) {
  const auto frames = FramesOf(kHeader, Pattern(2 * kMaxChunkBytes + 5));
  MessageHeader other_header = kHeader;
  other_header.step += 1;
  const auto other = FramesOf(other_header, Pattern(2 * kMaxChunkBytes + 5));
  ASSERT_EQ(frames.size(), 3U);
  {
    FrameAssembler skipped(kRun, 1 << 30);
    ASSERT_TRUE(TakeOne(skipped, frames[0]).ok());
    EXPECT_THAT(std::string(TakeOne(skipped, frames[2]).status().message()),
                HasSubstr("out of order"));
  }
  {
    FrameAssembler repeated(kRun, 1 << 30);
    ASSERT_TRUE(TakeOne(repeated, frames[0]).ok());
    EXPECT_FALSE(TakeOne(repeated, frames[0]).ok());
  }
  {
    FrameAssembler mixed(kRun, 1 << 30);
    ASSERT_TRUE(TakeOne(mixed, frames[0]).ok());
    EXPECT_THAT(std::string(TakeOne(mixed, other[1]).status().message()),
                HasSubstr("before the one before"));
  }
}

TEST(FrameTest, TheLimitIsExact) {
  const auto frames = FramesOf(kHeader, Pattern(1000));
  FrameAssembler exact(kRun, 1000);
  EXPECT_TRUE(TakeOne(exact, frames[0]).ok());
  FrameAssembler less(kRun, 999);
  EXPECT_EQ(TakeOne(less, frames[0]).status().code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace pcmoe::wire
