// tests/proxy/channel_over_link_test.cc: gRPC channels over a link that is long, silent or cut.
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "pcmoe/transport/test_parties.h"
#include "tests/proxy/link_proxy.h"

namespace pcmoe::tests {
namespace {

using testing::HasSubstr;
using transport::Channel;
using transport::Event;
using transport::NextOf;
using transport::TestMessage;

class ChannelOverLinkTest : public testing::Test {
 protected:
  void Open(double delay_ms, double mbit) {
    LinkOptions link;
    link.target_port = parties_.Options(1).parties[1].port;
    link.one_way_delay = std::chrono::microseconds(static_cast<int64_t>(1000 * delay_ms));
    link.bits_per_second = 1e6 * mbit;
    proxy_ = *LinkProxy::Start(link);
    auto options = parties_.Options(0);
    options.parties[1].port = proxy_->port();
    a_ = *CreateGrpcChannel(options);
    b_ = *CreateGrpcChannel(parties_.Options(1));
    ASSERT_TRUE(AllUp(*a_) && AllUp(*b_));
  }
  // Seconds until `bytes` from party 0 have arrived at party 1.
  double Transit(size_t bytes) {
    const absl::Time start = absl::Now();
    EXPECT_TRUE(a_->Send(TestMessage(gate_, 1, 0, bytes), start + absl::Seconds(10)).ok());
    EXPECT_TRUE(NextOf(*b_, Event::Kind::kMessage).has_value());
    return absl::ToDoubleSeconds(absl::Now() - start);
  }

  const transport::TestParties parties_{2};
  border::EgressGate gate_{{}, nullptr};
  std::unique_ptr<LinkProxy> proxy_;
  std::unique_ptr<Channel> a_;
  std::unique_ptr<Channel> b_;
};

TEST_F(ChannelOverLinkTest, MessagesTakeTheTimeOfTheLinkAndLittleMore) {
  Open(10, 100);
  Transit(1000);
  EXPECT_GE(Transit(1000), 0.010);
  EXPECT_LT(Transit(1000), 0.015);
  // 2.5 MB are 200 ms on the wire; TLS, HTTP/2 and a busy machine may add a little.
  Transit(2'500'000);
  const double seconds = Transit(2'500'000);
  EXPECT_GE(seconds, 0.205);
  EXPECT_LT(seconds, 0.260);
}

// What a firewall does that forgets a connection: no packet, no end.
TEST_F(ChannelOverLinkTest, ASilentLinkIsNoticedOnBothSides) {
  Open(1, 0);
  proxy_->SetHang(true);
  const absl::Time start = absl::Now();
  const auto at_a = NextOf(*a_, Event::Kind::kPeerDown);
  const auto at_b = NextOf(*b_, Event::Kind::kPeerDown);
  ASSERT_TRUE(at_a.has_value() && at_b.has_value());
  EXPECT_LT(absl::Now() - start, absl::Seconds(5));
  for (const auto& event : {*at_a, *at_b}) {
    EXPECT_THAT(std::string(event.why.message()), HasSubstr("no sign of life for 1 s"));
  }
  proxy_->SetCut(true);
  proxy_->SetHang(false);
  proxy_->SetCut(false);
  EXPECT_TRUE(NextOf(*a_, Event::Kind::kPeerUp, absl::Seconds(20)).has_value());
}

TEST_F(ChannelOverLinkTest, ACutLinkIsNoticedAtOnceAndMadeAgain) {
  Open(1, 0);
  const absl::Time start = absl::Now();
  proxy_->SetCut(true);
  ASSERT_TRUE(NextOf(*a_, Event::Kind::kPeerDown).has_value());
  ASSERT_TRUE(NextOf(*b_, Event::Kind::kPeerDown).has_value());
  EXPECT_LT(absl::Now() - start, absl::Seconds(1));
  proxy_->SetCut(false);
  ASSERT_TRUE(AllUp(*a_) && AllUp(*b_));
  Transit(100'000);
}

}  // namespace
}  // namespace pcmoe::tests
