// pcmoe/border/egress_gate_test.cc: nothing leaves that the policy forbids or the ledger lacks.
#include "pcmoe/border/egress_gate.h"

#include <unistd.h>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "pcmoe/wire/frame.h"

namespace pcmoe::border {
namespace {

using testing::HasSubstr;
using wire::MessageKind;

constexpr MessageKind kRowKinds[] = {MessageKind::kExpertRows, MessageKind::kExpertOutputs,
                                     MessageKind::kRowGradients, MessageKind::kInputGradients};

class EgressGateTest : public testing::Test {
 protected:
  EgressGateTest()
      : path_(std::filesystem::temp_directory_path() / absl::StrCat("pcmoe_gate_", ::getpid())) {
    std::filesystem::remove(path_);
  }
  ~EgressGateTest() override { std::filesystem::remove(path_); }
  std::unique_ptr<Ledger> OpenLedger() {
    return std::move(Ledger::Open(path_, {"a", "b"})).value();
  }
  const std::filesystem::path path_;
};

TEST_F(EgressGateTest, RefusesReadableRowsWithoutPermission) {
  EgressGate gate({}, OpenLedger());
  for (const MessageKind kind : kRowKinds) {
    const auto sealed = gate.Release(1, {kind}, wire::Buffer::Allocate(8));
    ASSERT_EQ(sealed.status().code(), absl::StatusCode::kPermissionDenied);
    const std::string sentence(sealed.status().message());
    EXPECT_THAT(sentence, HasSubstr(std::string(NameOf(kind)) + " from b"));
    EXPECT_THAT(sentence, HasSubstr("allow_readable_rows = true"));
  }
  EXPECT_EQ(gate.released_bytes(1), 0U);
  EXPECT_EQ(VerifyLedger(path_)->records, 0U);
}

TEST_F(EgressGateTest, RefusesWhatTheOperatorForbidsAndNothingElse) {
  EgressGate gate({.allow_readable_rows = true, .forbidden = {{1, MessageKind::kVote}}},
                  OpenLedger());
  const auto refused = gate.Release(1, {MessageKind::kVote}, {});
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(refused.status().message()),
              HasSubstr("vote from b: this party's policy"));
  EXPECT_TRUE(gate.Release(0, {MessageKind::kVote}, {}).ok());
  EXPECT_TRUE(gate.Release(1, {MessageKind::kBegin}, {}).ok());
}

TEST_F(EgressGateTest, RecordsWhatItReleasesAndKeepsItsContent) {
  EgressGate gate({.allow_readable_rows = true}, OpenLedger());
  const wire::MessageHeader header{MessageKind::kExpertRows, 3, 1, 2, 4};
  wire::Buffer payload = wire::Buffer::Allocate(1000);
  payload.writable()[7] = 42;

  auto sealed = gate.Release(1, header, payload);
  ASSERT_TRUE(sealed.ok()) << sealed.status();
  EXPECT_EQ(sealed->to(), 1);
  EXPECT_EQ(sealed->header(), header);
  EXPECT_EQ(sealed->payload().bytes().data(), payload.bytes().data());
  EXPECT_EQ(gate.released_bytes(1), wire::FramedBytes(1000));
  EXPECT_EQ(gate.released_bytes(0), 0U);
  const LedgerSummary::Sum expected{wire::FramedBytes(1000), 1};
  EXPECT_EQ((VerifyLedger(path_)->sums[{"b", "expert_rows"}]), expected);
}

TEST_F(EgressGateTest, NothingLeavesWhenTheLedgerFails) {
  EgressGate gate({}, std::move(Ledger::Open("/dev/full", {"a", "b"})).value());
  EXPECT_EQ(gate.Release(1, {MessageKind::kVote}, {}).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(gate.released_bytes(1), 0U);
}

TEST_F(EgressGateTest, AnUnknownKindOrReceiverIsABug) {
  EgressGate gate({}, nullptr);
  EXPECT_FALSE(gate.Release(-1, {}, {}).ok());
  EXPECT_FALSE(gate.Release(1, {static_cast<MessageKind>(200)}, {}).ok());
  EXPECT_EQ(gate.released_bytes(-1), 0U);
}

}  // namespace
}  // namespace pcmoe::border
