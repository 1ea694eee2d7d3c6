// pcmoe/transport/loopback_test.cc: the faults that tests of the exchange ask for do happen.
#include "pcmoe/transport/loopback.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "pcmoe/transport/test_parties.h"

namespace pcmoe::transport {
namespace {

class LoopbackTest : public testing::Test {
 protected:
  LoopbackTest() : mesh_(LoopbackMesh::Create(2, {.run = kTestRun})) {
    a_ = mesh_->Open(0);
    b_ = mesh_->Open(1);
    EXPECT_TRUE(AllUp(*a_) && AllUp(*b_));
  }
  absl::Status Send(uint64_t step) {
    return a_->Send(TestMessage(gate_, 1, step, 100), absl::Now() + absl::Seconds(1));
  }
  border::EgressGate gate_{{}, nullptr};
  const std::shared_ptr<LoopbackMesh> mesh_;
  std::unique_ptr<Channel> a_;
  std::unique_ptr<Channel> b_;
};

TEST_F(LoopbackTest, DelayHoldsMessagesBack) {
  mesh_->SetDelay(0, 1, absl::Milliseconds(80));
  const absl::Time start = absl::Now();
  ASSERT_TRUE(Send(1).ok());
  ASSERT_TRUE(NextOf(*b_, Event::Kind::kMessage).has_value());
  EXPECT_GE(absl::Now() - start, absl::Milliseconds(80));
}

TEST_F(LoopbackTest, AHungLinkIsSilentAndLosesNothing) {
  mesh_->SetHang(0, 1, true);
  ASSERT_TRUE(Send(1).ok());
  EXPECT_FALSE(b_->Next(absl::Now() + absl::Milliseconds(50)).has_value());
  mesh_->SetHang(0, 1, false);
  EXPECT_EQ(NextOf(*b_, Event::Kind::kMessage)->message.header.step, 1U);
}

TEST_F(LoopbackTest, ACutLinkStaysDownUntilRestored) {
  mesh_->Cut(0, 1);
  ASSERT_TRUE(NextOf(*a_, Event::Kind::kPeerDown).has_value());
  ASSERT_TRUE(NextOf(*b_, Event::Kind::kPeerDown).has_value());
  EXPECT_FALSE(b_->Next(absl::Now() + absl::Milliseconds(60)).has_value());
  EXPECT_FALSE(Send(1).ok());
  mesh_->Restore(0, 1);
  ASSERT_TRUE(NextOf(*b_, Event::Kind::kPeerUp).has_value());
  EXPECT_TRUE(Send(2).ok());
}

TEST_F(LoopbackTest, ADamagedFrameBringsTheConnectionDown) {
  mesh_->DamageNextFrame(0, 1);
  ASSERT_TRUE(Send(1).ok());
  const auto down = NextOf(*b_, Event::Kind::kPeerDown);
  ASSERT_TRUE(down.has_value());
  EXPECT_TRUE(absl::IsDataLoss(down->why)) << down->why;
  ASSERT_TRUE(NextOf(*b_, Event::Kind::kPeerUp).has_value());
}

TEST_F(LoopbackTest, APartyMayDieAndComeBack) {
  a_.reset();
  ASSERT_TRUE(NextOf(*b_, Event::Kind::kPeerDown).has_value());
  a_ = mesh_->Open(0);
  ASSERT_TRUE(AllUp(*a_));
  ASSERT_TRUE(NextOf(*b_, Event::Kind::kPeerUp).has_value());
  ASSERT_TRUE(Send(4).ok());
  EXPECT_EQ(NextOf(*b_, Event::Kind::kMessage)->message.header.step, 4U);
}

}  // namespace
}  // namespace pcmoe::transport
