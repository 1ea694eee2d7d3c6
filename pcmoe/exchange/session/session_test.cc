// pcmoe/exchange/session/session_test.cc: order of arrival, duplicates, lateness and silence change
// nothing but the sentence in which a run fails.
#include "pcmoe/exchange/session/session.h"

#include <gtest/gtest.h>

#include "pcmoe/transport/loopback.h"

namespace pcmoe::exchange {
namespace {

using wire::MessageKind;

wire::Buffer Byte(uint8_t value) {
  wire::Buffer buffer = wire::Buffer::Allocate(1);
  buffer.writable()[0] = value;
  return buffer;
}

// Two parties in one thread: what one sends, the other finds waiting.
class SessionTest : public testing::Test {
 protected:
  SessionTest()
      : channels_(transport::MakeLoopback(2)),
        a_(channels_[0].get(), &gate_a_, Options()),
        b_(channels_[1].get(), &gate_b_, Options()) {
    std::vector<wire::PartyIndex> came_up;
    while (!a_.IsUp(1)) a_.WaitForAnything(absl::Now() + absl::Seconds(5), came_up);
    while (!b_.IsUp(0)) b_.WaitForAnything(absl::Now() + absl::Seconds(5), came_up);
  }
  static Session::Options Options() {
    return {.peer_timeout = absl::Milliseconds(300), .names = {"ann", "bob"}};
  }
  static border::Policy Open() { return {.allow_readable_rows = true}; }

  border::EgressGate gate_a_{Open(), nullptr};
  border::EgressGate gate_b_{Open(), nullptr};
  std::vector<std::unique_ptr<transport::Channel>> channels_;
  Session a_, b_;
};

TEST_F(SessionTest, AnswersAreFoundByPlaceWhateverTheirOrder) {
  ASSERT_TRUE(a_.EnterStep(3, 1).ok());
  ASSERT_TRUE(b_.EnterStep(3, 1).ok());
  ASSERT_TRUE(a_.Send(1, MessageKind::kExpertOutputs, 2, 1, Byte(21)).ok());
  ASSERT_TRUE(a_.Send(1, MessageKind::kExpertOutputs, 2, 0, Byte(20)).ok());
  EXPECT_EQ(b_.Await(MessageKind::kExpertOutputs, 0, 2, 0)->bytes()[0], 20);
  EXPECT_EQ(b_.Await(MessageKind::kExpertOutputs, 0, 2, 1)->bytes()[0], 21);
}

TEST_F(SessionTest, MessagesOfALaterStepWaitAndOfAnEarlierAttemptVanish) {
  ASSERT_TRUE(a_.EnterStep(3, 1).ok());
  ASSERT_TRUE(a_.Send(1, MessageKind::kVote, 0, 0, Byte(1)).ok());
  ASSERT_TRUE(a_.EnterStep(3, 2).ok());
  ASSERT_TRUE(a_.Send(1, MessageKind::kVote, 0, 0, Byte(2)).ok());
  ASSERT_TRUE(a_.EnterStep(4, 2).ok());
  ASSERT_TRUE(a_.Send(1, MessageKind::kVote, 0, 0, Byte(3)).ok());
  ASSERT_TRUE(b_.EnterStep(3, 2).ok());
  EXPECT_EQ(b_.Await(MessageKind::kVote, 0, 0, 0)->bytes()[0], 2);
  ASSERT_TRUE(b_.EnterStep(4, 2).ok());
  EXPECT_EQ(b_.Await(MessageKind::kVote, 0, 0, 0)->bytes()[0], 3);
}

TEST_F(SessionTest, AnEvaluationIsAPhaseOfItsOwnAfterTheStep) {
  ASSERT_TRUE(a_.EnterStep(3, 1).ok());
  ASSERT_TRUE(a_.Send(1, MessageKind::kBegin, 0, 0, Byte(1)).ok());
  ASSERT_TRUE(a_.EnterStep(3, 1, Session::Phase::kEvaluation).ok());
  ASSERT_TRUE(a_.Send(1, MessageKind::kBegin, 0, 0, Byte(2)).ok());
  ASSERT_TRUE(b_.EnterStep(3, 1).ok());
  EXPECT_EQ(b_.Await(MessageKind::kBegin, 0, 0, 0)->bytes()[0], 1);
  ASSERT_TRUE(b_.EnterStep(3, 1, Session::Phase::kEvaluation).ok());
  EXPECT_EQ(b_.Await(MessageKind::kBegin, 0, 0, 0)->bytes()[0], 2);
}

TEST_F(SessionTest, ADuplicateIsServedOnce) {
  int served = 0;
  b_.Serve(MessageKind::kExpertRows, [&](wire::PartyIndex, wire::Message) {
    ++served;
    return absl::OkStatus();
  });
  ASSERT_TRUE(a_.EnterStep(0, 1).ok());
  ASSERT_TRUE(b_.EnterStep(0, 1).ok());
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(a_.Send(1, MessageKind::kExpertRows, 1, 1, Byte(1)).ok());
  ASSERT_TRUE(a_.Send(1, MessageKind::kVote, 0, 0, Byte(1)).ok());
  ASSERT_TRUE(b_.Await(MessageKind::kVote, 0, 0, 0).ok());
  EXPECT_EQ(served, 1);
}

TEST_F(SessionTest, SilenceEndsAtTheDeadlineAndNamesWhoOwes) {
  ASSERT_TRUE(a_.EnterStep(0, 1).ok());
  const auto vote = a_.Await(MessageKind::kVote, 1, 0, 0);
  EXPECT_EQ(vote.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_NE(vote.status().message().find("party bob"), std::string::npos);
  EXPECT_EQ(FailureIn(vote.status())->reason, AbortReason::kTimeout);
}

TEST_F(SessionTest, AHandlersComplaintIsTheSendersFault) {
  b_.Serve(MessageKind::kExpertRows, [](wire::PartyIndex, wire::Message) {
    return absl::InvalidArgumentError("sent nonsense");
  });
  ASSERT_TRUE(a_.EnterStep(0, 1).ok());
  ASSERT_TRUE(b_.EnterStep(0, 1).ok());
  ASSERT_TRUE(a_.Send(1, MessageKind::kExpertRows, 1, 1, Byte(1)).ok());
  const auto vote = b_.Await(MessageKind::kVote, 0, 0, 0);
  EXPECT_EQ(FailureIn(vote.status())->culprit, 0);
  EXPECT_EQ(FailureIn(vote.status())->reason, AbortReason::kBadMessage);
}

TEST_F(SessionTest, AnAbortNamesTheCulpritToEverybody) {
  ASSERT_TRUE(a_.EnterStep(0, 1).ok());
  ASSERT_TRUE(b_.EnterStep(0, 1).ok());
  a_.TellAbort({0, AbortReason::kLocalError});
  const auto vote = b_.Await(MessageKind::kVote, 0, 0, 0);
  EXPECT_EQ(FailureIn(vote.status())->culprit, 0);
  EXPECT_EQ(vote.status().message(), "party ann stopped by an error of its own");
}

TEST_F(SessionTest, AnAbortWaitsOnlyShortlyForAPeerThatTakesNothing) {
  auto mesh = transport::LoopbackMesh::Create(3, {.queue_bytes = 256});
  std::vector<std::unique_ptr<transport::Channel>> channels;
  for (int party = 0; party < 3; ++party) channels.push_back(mesh->Open(party));
  const auto make = [&](int party) {
    return Session(channels[static_cast<size_t>(party)].get(), &gate_a_,
                   {.peer_timeout = absl::Seconds(60), .names = {"ann", "bob", "cat"}});
  };
  Session ann = make(0);
  Session cat = make(2);
  std::vector<wire::PartyIndex> came_up;
  while (!ann.IsUp(1) || !ann.IsUp(2)) ann.WaitForAnything(absl::InfiniteFuture(), came_up);
  while (!cat.IsUp(0)) cat.WaitForAnything(absl::InfiniteFuture(), came_up);
  ASSERT_TRUE(ann.EnterStep(0, 1).ok());
  ASSERT_TRUE(cat.EnterStep(0, 1).ok());
  ASSERT_TRUE(ann.Send(1, MessageKind::kExpertRows, 0, 0, wire::Buffer::Allocate(4096)).ok());
  const absl::Time begin = absl::Now();
  ann.TellAbort({1, AbortReason::kTimeout});
  EXPECT_LT(absl::Now() - begin, absl::Seconds(10));
  EXPECT_GT(absl::Now() - begin, absl::Seconds(1));  // so bob's queue was full indeed
  const auto vote = cat.Await(MessageKind::kVote, 0, 0, 0);
  EXPECT_EQ(FailureIn(vote.status())->culprit, 1);
}

TEST_F(SessionTest, ADeadPeerIsNoticedAtOnce) {
  ASSERT_TRUE(a_.EnterStep(0, 1).ok());
  channels_[1].reset();
  const auto vote = a_.Await(MessageKind::kVote, 1, 0, 0);
  EXPECT_EQ(vote.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(FailureIn(vote.status())->reason, AbortReason::kPeerLost);
}

TEST_F(SessionTest, RowsDoNotLeaveWithoutPermission) {
  border::EgressGate closed{border::Policy{}, nullptr};
  Session session(channels_[0].get(), &closed, Options());
  ASSERT_TRUE(session.EnterStep(0, 1).ok());
  EXPECT_EQ(session.Send(1, MessageKind::kExpertRows, 0, 0, Byte(1)).code(),
            absl::StatusCode::kPermissionDenied);
}

}  // namespace
}  // namespace pcmoe::exchange
