// pcmoe/transport/recording_channel_test.cc: what is kept is what was received.
#include "pcmoe/transport/recording_channel.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <thread>

#include "pcmoe/border/egress_gate.h"
#include "pcmoe/transport/loopback.h"
#include "pcmoe/wire/record.h"

namespace pcmoe::transport {
namespace {

TEST(RecordHeaderTest, RoundTripsAndRefusesWhatIsNoRecord) {
  const wire::RecordHeader record{.header = {.kind = wire::MessageKind::kRowGradients,
                                             .step = 1234567890123,
                                             .attempt = 7,
                                             .layer = 0x8003,
                                             .micro_batch = 9},
                                  .from = 2,
                                  .payload_bytes = 88};
  auto bytes = wire::EncodeRecordHeader(record);
  EXPECT_EQ(*wire::DecodeRecordHeader(bytes), record);
  bytes[4] = 0;
  EXPECT_TRUE(absl::IsDataLoss(wire::DecodeRecordHeader(bytes).status()));
  bytes[0] ^= 1;
  EXPECT_TRUE(absl::IsDataLoss(wire::DecodeRecordHeader(bytes).status()));
}

TEST(RecordingChannelTest, KeepsEveryReceivedPayloadInAPrivateFile) {
  const std::filesystem::path folder =
      std::filesystem::path(testing::TempDir()) / "recording_channel_test";
  std::filesystem::remove_all(folder);
  auto channels = MakeLoopback(2);
  auto recorded = RecordReceived(std::move(channels[0]), folder);
  ASSERT_TRUE(recorded.ok()) << recorded.status();
  border::EgressGate gate({.allow_readable_rows = true}, nullptr);
  wire::Buffer payload = wire::Buffer::Allocate(1000);
  for (size_t i = 0; i < 1000; ++i) payload.writable()[i] = static_cast<uint8_t>(i * 7);
  const wire::MessageHeader header{.kind = wire::MessageKind::kExpertRows, .step = 3, .layer = 1};
  ASSERT_TRUE(
      channels[1]->Send(*gate.Release(0, header, payload), absl::Now() + absl::Seconds(5)).ok());
  std::optional<Event> event;
  do {
    event = (*recorded)->Next(absl::Now() + absl::Seconds(5));
    ASSERT_TRUE(event.has_value());
  } while (event->kind != Event::Kind::kMessage);

  std::ifstream file(folder / kRecordingFile, std::ios::binary);
  const std::vector<char> bytes((std::istreambuf_iterator<char>(file)), {});
  ASSERT_EQ(bytes.size(), wire::kRecordHeaderBytes + 1000);
  std::array<uint8_t, wire::kRecordHeaderBytes> head;
  std::copy_n(bytes.begin(), head.size(), reinterpret_cast<char*>(head.data()));
  const auto record = wire::DecodeRecordHeader(head);
  ASSERT_TRUE(record.ok());
  EXPECT_EQ(record->header, header);
  EXPECT_EQ(record->from, 1);
  EXPECT_TRUE(std::equal(payload.bytes().begin(), payload.bytes().end(),
                         bytes.begin() + wire::kRecordHeaderBytes,
                         [](uint8_t a, char b) { return a == static_cast<uint8_t>(b); }));
  using std::filesystem::perms;
  EXPECT_EQ(std::filesystem::status(folder).permissions(), perms::owner_all);
  EXPECT_EQ(std::filesystem::status(folder / kRecordingFile).permissions(),
            perms::owner_read | perms::owner_write);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace pcmoe::transport
