// pcmoe/transport/conformance_test.cc: what every channel promises, held against each of them.
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "pcmoe/transport/loopback.h"
#include "pcmoe/transport/test_parties.h"

namespace pcmoe::transport {
namespace {

using testing::HasSubstr;
using Channels = std::vector<std::unique_ptr<Channel>>;

struct Sizes {
  uint64_t max_message_bytes = uint64_t{64} << 20;
  uint64_t queue_bytes = uint64_t{256} << 20;
  uint64_t inbox_bytes = uint64_t{256} << 20;
};

Channels OpenLoopback(int n, const Sizes& sizes) {
  LoopbackOptions options;
  options.run = kTestRun;
  options.max_message_bytes = sizes.max_message_bytes;
  options.queue_bytes = sizes.queue_bytes;
  return MakeLoopback(n, options);
}

Channels OpenGrpc(int n, const Sizes& sizes) {
  const TestParties parties(n);
  Channels channels;
  for (int i = 0; i < n; ++i) {
    GrpcChannelOptions options = parties.Options(i);
    options.max_message_bytes = sizes.max_message_bytes;
    options.queue_bytes = sizes.queue_bytes;
    options.inbox_bytes = sizes.inbox_bytes;
    auto channel = CreateGrpcChannel(options);
    if (!channel.ok()) return {};
    channels.push_back(*std::move(channel));
  }
  return channels;
}

struct Kind {
  const char* name;
  Channels (*open)(int n, const Sizes& sizes);
};

class ConformanceTest : public testing::TestWithParam<Kind> {
 protected:
  void Open(int n, const Sizes& sizes = {}) {
    channels_ = GetParam().open(n, sizes);
    ASSERT_EQ(channels_.size(), static_cast<size_t>(n));
    for (auto& channel : channels_) ASSERT_TRUE(AllUp(*channel));
  }
  Channel& At(int party) { return *channels_[static_cast<size_t>(party)]; }
  static absl::Time Soon(double seconds = 10) { return absl::Now() + absl::Seconds(seconds); }

  border::EgressGate gate_{{}, nullptr};
  Channels channels_;
};

TEST_P(ConformanceTest, MessagesArriveWholeOnceAndInOrder) {
  Open(3);
  constexpr uint64_t kCount = 300;
  std::thread sender([&] {
    for (uint64_t i = 0; i < kCount; ++i) {
      for (const int to : {1, 2}) {
        const auto sent = At(0).Send(
            TestMessage(gate_, to, i, 17 * i % 70000, static_cast<uint32_t>(i + 1)), Soon());
        EXPECT_TRUE(sent.ok()) << sent;
      }
    }
  });
  for (const int to : {1, 2}) {
    for (uint64_t i = 0; i < kCount; ++i) {
      const auto event = NextOf(At(to), Event::Kind::kMessage);
      ASSERT_TRUE(event.has_value()) << i;
      ASSERT_EQ(event->peer, 0);
      ASSERT_EQ(event->message.header.step, i);
      ASSERT_EQ(event->message.payload.size(), 17 * i % 70000);
      ASSERT_TRUE(HasPattern(event->message.payload, static_cast<uint32_t>(i + 1)));
    }
  }
  sender.join();
}

TEST_P(ConformanceTest, LargeMessagesCrossInBothDirectionsAtOnce) {
  Open(2);
  constexpr size_t kBytes = 50'000'000;
  ASSERT_TRUE(At(0).Send(TestMessage(gate_, 1, 5, kBytes, 3), Soon()).ok());
  ASSERT_TRUE(At(1).Send(TestMessage(gate_, 0, 6, kBytes, 4), Soon()).ok());
  for (const int party : {0, 1}) {
    const auto event = NextOf(At(party), Event::Kind::kMessage);
    ASSERT_TRUE(event.has_value());
    EXPECT_EQ(event->message.payload.size(), kBytes);
    EXPECT_TRUE(HasPattern(event->message.payload, party == 0 ? 4 : 3));
  }
}

// Ledger equals wire: what the gate released is what the channel counts, on both ends.
TEST_P(ConformanceTest, CountedBytesAreTheReleasedBytes) {
  Open(2);
  for (const size_t bytes : {size_t{0}, size_t{1}, wire::kMaxChunkBytes, size_t{9'000'001}}) {
    ASSERT_TRUE(At(0).Send(TestMessage(gate_, 1, 0, bytes), Soon()).ok());
    ASSERT_TRUE(NextOf(At(1), Event::Kind::kMessage).has_value());
  }
  EXPECT_EQ(At(0).TrafficWith(1).sent_bytes, gate_.released_bytes(1));
  EXPECT_EQ(At(1).TrafficWith(0).received_bytes, gate_.released_bytes(1));
  EXPECT_EQ(At(0).TrafficWith(1).sent_messages, 4U);
  EXPECT_EQ(At(1).TrafficWith(0).received_messages, 4U);
  EXPECT_EQ(At(1).TrafficWith(0).sent_bytes, 0U);
}

TEST_P(ConformanceTest, AFullQueueBlocksUntilTheDeadlineAndDrainsInOrder) {
  Open(2, {.queue_bytes = 3'000'000, .inbox_bytes = 1'000'000});
  uint64_t sent = 0;
  absl::Status status;
  // Nobody reads at party 1; the network itself holds some megabytes.
  while (sent < 100) {
    status = At(0).Send(TestMessage(gate_, 1, sent, 1'000'000), Soon(0.3));
    if (!status.ok()) break;
    ++sent;
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
  EXPECT_GE(sent, 2U);
  for (uint64_t i = 0; i < sent; ++i) {
    const auto event = NextOf(At(1), Event::Kind::kMessage);
    ASSERT_TRUE(event.has_value()) << i << " of " << sent;
    EXPECT_EQ(event->message.header.step, i);
  }
  EXPECT_TRUE(At(0).Send(TestMessage(gate_, 1, 999, 10), Soon()).ok());
  EXPECT_EQ(NextOf(At(1), Event::Kind::kMessage)->message.header.step, 999U);
}

TEST_P(ConformanceTest, OneMessageLargerThanTheQueueIsTaken) {
  Open(2, {.queue_bytes = 1000});
  ASSERT_TRUE(At(0).Send(TestMessage(gate_, 1, 0, 5'000'000), Soon()).ok());
  ASSERT_TRUE(NextOf(At(1), Event::Kind::kMessage).has_value());
}

TEST_P(ConformanceTest, ADroppedPeerGoesDownOnBothSidesAndComesBack) {
  Open(2);
  At(1).Drop(0, absl::DataLossError("a: sent nonsense"));
  const auto at_dropper = NextOf(At(1), Event::Kind::kPeerDown);
  ASSERT_TRUE(at_dropper.has_value());
  EXPECT_EQ(at_dropper->why.message(), "a: sent nonsense");
  const auto at_dropped = NextOf(At(0), Event::Kind::kPeerDown);
  ASSERT_TRUE(at_dropped.has_value());
  EXPECT_FALSE(at_dropped->why.ok());
  EXPECT_THAT(std::string(at_dropped->why.message()), testing::Not(HasSubstr("nonsense")));

  ASSERT_TRUE(NextOf(At(0), Event::Kind::kPeerUp).has_value());
  ASSERT_TRUE(NextOf(At(1), Event::Kind::kPeerUp).has_value());
  EXPECT_TRUE(At(0).PeerStatus(1).ok());
  ASSERT_TRUE(At(0).Send(TestMessage(gate_, 1, 8, 100), Soon()).ok());
  EXPECT_EQ(NextOf(At(1), Event::Kind::kMessage)->message.header.step, 8U);
}

TEST_P(ConformanceTest, AMessageOverTheLimitIsRefusedAndTheConnectionDropped) {
  Open(2, {.max_message_bytes = 10'000});
  ASSERT_TRUE(At(0).Send(TestMessage(gate_, 1, 0, 10'000), Soon()).ok());
  ASSERT_TRUE(NextOf(At(1), Event::Kind::kMessage).has_value());
  ASSERT_TRUE(At(0).Send(TestMessage(gate_, 1, 0, 10'001), Soon()).ok());
  const auto down = NextOf(At(1), Event::Kind::kPeerDown);
  ASSERT_TRUE(down.has_value());
  EXPECT_EQ(down->why.code(), absl::StatusCode::kResourceExhausted) << down->why;
  ASSERT_TRUE(NextOf(At(0), Event::Kind::kPeerDown).has_value());
}

TEST_P(ConformanceTest, TheDeathOfAPartyIsNoticedByAllOthers) {
  Open(3);
  channels_[1].reset();
  for (const int party : {0, 2}) {
    const auto down = NextOf(At(party), Event::Kind::kPeerDown);
    ASSERT_TRUE(down.has_value());
    EXPECT_EQ(down->peer, 1);
    EXPECT_TRUE(absl::IsUnavailable(down->why)) << down->why;
    EXPECT_TRUE(absl::IsUnavailable(At(party).Send(TestMessage(gate_, 1, 0, 10), Soon())));
    EXPECT_FALSE(At(party).PeerStatus(1).ok());
  }
  ASSERT_TRUE(At(0).Send(TestMessage(gate_, 2, 3, 10), Soon()).ok());
  EXPECT_EQ(NextOf(At(2), Event::Kind::kMessage)->message.header.step, 3U);
}

TEST_P(ConformanceTest, CloseSendsWhatIsQueued) {
  for (const int closing : {0, 1}) {
    Open(2);
    const int other = 1 - closing;
    for (uint64_t i = 0; i < 20; ++i) {
      ASSERT_TRUE(At(closing).Send(TestMessage(gate_, other, i, 1'000'000), Soon()).ok());
    }
    std::thread closer([&] { At(closing).Close(Soon()); });
    uint64_t received = 0;
    while (auto event = At(other).Next(Soon())) {
      if (event->kind == Event::Kind::kPeerDown) {
        EXPECT_THAT(std::string(event->why.message()), HasSubstr("closed"));
        break;
      }
      received += event->kind == Event::Kind::kMessage ? 1 : 0;
    }
    closer.join();
    EXPECT_EQ(received, 20U);
    EXPECT_FALSE(At(closing).Send(TestMessage(gate_, other, 0, 1), Soon()).ok());
    At(closing).Close(Soon());
  }
}

TEST_P(ConformanceTest, NextGivesUpAtItsDeadline) {
  Open(2);
  const absl::Time start = absl::Now();
  EXPECT_FALSE(At(0).Next(start + absl::Milliseconds(100)).has_value());
  EXPECT_GE(absl::Now() - start, absl::Milliseconds(99));
  EXPECT_LT(absl::Now() - start, absl::Seconds(2));
  EXPECT_FALSE(At(0).Send(TestMessage(gate_, 0, 0, 1), Soon()).ok()) << "to itself";
  EXPECT_FALSE(At(0).Send(TestMessage(gate_, 9, 0, 1), Soon()).ok()) << "to nobody";
}

INSTANTIATE_TEST_SUITE_P(Channels, ConformanceTest,
                         testing::Values(Kind{"loopback", OpenLoopback}, Kind{"grpc", OpenGrpc}),
                         [](const auto& parameter) { return std::string(parameter.param.name); });

}  // namespace
}  // namespace pcmoe::transport
