// tests/federation/hostile_peer_test.cc: whatever one party sends, no other changes a weight, and
// each says who it was and why; what is only sent twice or late changes nothing.
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "misdeeds.h"
#include "party_threads.h"

namespace pcmoe::testing_federation {
namespace {

using exchange::AbortReason;
using testing::HasSubstr;
using testing::IsEmpty;
using wire::MessageKind;

constexpr int kParties = 3;
constexpr int kBad = 1;  // party b

Recipe TheRecipe(int steps) {
  Recipe recipe = SmallRecipe("olmoe");
  recipe.parties = kParties;
  recipe.steps = steps;
  return recipe;
}

std::vector<Outcome> RunWithBad(const Recipe& recipe, const Tamper& tamper) {
  auto channels = LoopbackChannels(recipe.parties);
  channels[kBad] = std::make_unique<TamperingChannel>(std::move(channels[kBad]), tamper);
  return RunParties(recipe, std::move(channels));
}

// What an undisturbed run has after `steps`.
const std::vector<Outcome>& Undisturbed(int steps) {
  static std::map<int, std::vector<Outcome>> runs;
  if (!runs.contains(steps)) {
    runs[steps] = RunParties(TheRecipe(steps), LoopbackChannels(kParties));
  }
  return runs[steps];
}

std::vector<Misdeed> RowMisdeeds() {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::vector<Misdeed> all;
  for (const auto kind : {MessageKind::kExpertRows, MessageKind::kExpertOutputs,
                          MessageKind::kRowGradients, MessageKind::kInputGradients}) {
    const std::string name(NameOf(kind));
    all.push_back(Payload("nan_in_" + name, kind, LastIs(nan)));
    all.push_back(Payload("truncated_" + name, kind, Longer(-4)));
    all.push_back(Payload("oversized_" + name, kind, Longer(64)));
    all.push_back(
        Payload("empty_" + name, kind, [](const wire::Buffer&) { return wire::Buffer(); }));
    all.push_back(Payload("huge_count_in_" + name, kind,
                          [](const wire::Buffer& b) { return With(b, 0, uint32_t{0xffffffff}); }));
    all.push_back(Payload("other_dtype_in_" + name, kind,
                          [](const wire::Buffer& b) { return With(b, 8, uint8_t{2}); }));
  }
  for (const auto kind : {MessageKind::kExpertOutputs, MessageKind::kRowGradients}) {
    // Two rows fewer and consistent in itself.
    all.push_back(
        Payload("two_rows_fewer_in_" + std::string(NameOf(kind)), kind, [](const wire::Buffer& b) {
          uint32_t rows = 0;
          std::memcpy(&rows, b.bytes().data(), 4);
          return With(Copy(b, b.size() - 2 * 32 * sizeof(float)), 0, rows - 2);
        }));
  }
  for (const uint16_t expert : {uint16_t{1}, uint16_t{7}, uint16_t{9999}}) {
    // 1 and 7 are b's own, so not at a or c (round-robin over three).
    all.push_back(Payload(absl::StrCat("expert_", expert, "_that_is_not_there"),
                          MessageKind::kExpertRows, [expert](const wire::Buffer& b) {
                            uint32_t rows = 0;
                            std::memcpy(&rows, b.bytes().data(), 4);
                            return With(b, 16 + rows, expert);
                          }));
  }
  return all;
}

std::vector<Misdeed> StepMisdeeds() {
  const double infinity = std::numeric_limits<double>::infinity();
  std::vector<Misdeed> all;
  all.push_back(
      Payload("vote_nan", MessageKind::kVote, LastIs(std::nan("")), AbortReason::kNotFinite));
  all.push_back(
      Payload("vote_infinite", MessageKind::kVote, LastIs(infinity), AbortReason::kNotFinite));
  all.push_back(
      Payload("vote_over_all", MessageKind::kVote, LastIs(1e300), AbortReason::kNotFinite));
  all.push_back(
      Payload("vote_negative", MessageKind::kVote, LastIs(-1.0), AbortReason::kNotFinite));
  all.push_back(Payload("short_vote", MessageKind::kVote, Longer(-1)));
  all.push_back(Payload("long_begin", MessageKind::kBegin, Longer(8)));
  all.push_back(Payload("begin_with_negative_tokens", MessageKind::kBegin,
                        [](const wire::Buffer& b) { return With(b, 0, int64_t{-1}); }));
  all.push_back(Payload("begin_with_a_million_micro_batches", MessageKind::kBegin,
                        [](const wire::Buffer& b) { return With(b, 8, int64_t{1000000}); }));
  all.push_back({"more_micro_batches_than_announced", MessageKind::kExpertRows,
                 [](const Draft& draft) -> std::vector<Draft> {
                   Draft more = draft;
                   more.first.micro_batch = 60000;
                   return {draft, more};
                 },
                 AbortReason::kBadMessage});
  all.push_back({"a_layer_that_is_not_there", MessageKind::kExpertRows,
                 [](const Draft& draft) -> std::vector<Draft> {
                   Draft more = draft;
                   more.first.layer = 77;
                   return {draft, more};
                 },
                 AbortReason::kBadMessage});
  all.push_back({"gradients_never_asked_for", MessageKind::kExpertRows,
                 [](const Draft& draft) -> std::vector<Draft> {
                   Draft gradients = draft;
                   gradients.first.kind = MessageKind::kRowGradients;
                   return {gradients, draft};
                 },
                 AbortReason::kBadMessage});
  all.push_back({"abort_that_blames_c", MessageKind::kVote,
                 [](const Draft& draft) -> std::vector<Draft> {
                   wire::Buffer body = wire::Buffer::Allocate(2);
                   body.writable()[0] = 2;
                   body.writable()[1] = static_cast<uint8_t>(AbortReason::kPeerLost);
                   Draft abort{draft.first, body};
                   abort.first.kind = MessageKind::kAbort;
                   return {abort};
                 },
                 AbortReason::kPeerLost, 2, "as party b says"});
  all.push_back({"abort_that_cannot_be_read", MessageKind::kVote,
                 [](const Draft& draft) -> std::vector<Draft> {
                   Draft abort{draft.first, wire::Buffer::Allocate(2)};
                   abort.first.kind = MessageKind::kAbort;
                   abort.second.writable()[0] = 200;
                   return {abort};
                 },
                 AbortReason::kBadMessage});
  for (const auto kind :
       {MessageKind::kBegin, MessageKind::kExpertRows, MessageKind::kExpertOutputs,
        MessageKind::kInputGradients, MessageKind::kVote}) {
    all.push_back(Silence(kind));
  }
  return all;
}

class HostilePeer : public testing::TestWithParam<Misdeed> {};

TEST_P(HostilePeer, ChangesNoWeightAndIsNamed) {
  const Misdeed& misdeed = GetParam();
  Recipe recipe = TheRecipe(5);
  recipe.peer_timeout = misdeed.reason == AbortReason::kTimeout ? kShortTimeout : absl::Seconds(30);
  const auto outcomes = RunWithBad(recipe, Doing(misdeed));
  const std::vector<Outcome>& wanted = Undisturbed(static_cast<int>(misdeed.step));
  const auto failure = exchange::FailureIn(outcomes[0].status);
  ASSERT_TRUE(failure.has_value()) << outcomes[0].status;
  EXPECT_EQ(failure->culprit, misdeed.culprit) << outcomes[0].status;
  // A silent party hangs up when the first of the others gives it up.
  const bool hung_up =
      misdeed.reason == AbortReason::kTimeout && failure->reason == AbortReason::kPeerLost;
  EXPECT_TRUE(failure->reason == misdeed.reason || hung_up) << outcomes[0].status;
  EXPECT_THAT(std::string(outcomes[0].status.message()), HasSubstr(misdeed.words));
  EXPECT_THAT(Differences(outcomes[0].experts, wanted[0].experts), IsEmpty());
  EXPECT_THAT(Differences(outcomes[0].backbone, wanted[0].backbone), IsEmpty());
  EXPECT_FALSE(outcomes[2].status.ok());
}

std::string NameOfCase(const testing::TestParamInfo<Misdeed>& each) { return each.param.name; }
INSTANTIATE_TEST_SUITE_P(Rows, HostilePeer, testing::ValuesIn(RowMisdeeds()), NameOfCase);
INSTANTIATE_TEST_SUITE_P(Step, HostilePeer, testing::ValuesIn(StepMisdeeds()), NameOfCase);

// The run goes on to its end with the weights of an undisturbed one.
void ExpectHarmless(const Tamper& tamper) {
  const auto outcomes = RunWithBad(TheRecipe(5), tamper);
  for (size_t party = 0; party < kParties; ++party) {
    ASSERT_TRUE(outcomes[party].status.ok()) << outcomes[party].status;
    EXPECT_THAT(Differences(outcomes[party].experts, Undisturbed(5)[party].experts), IsEmpty());
    EXPECT_THAT(Differences(outcomes[party].backbone, Undisturbed(5)[party].backbone), IsEmpty());
  }
}

TEST(HarmlessPeer, EverythingTwice) {
  ExpectHarmless([](wire::PartyIndex, const Draft& draft) { return std::vector{draft, draft}; });
}

TEST(HarmlessPeer, EverythingOnceMoreWithOtherBytes) {
  ExpectHarmless([](wire::PartyIndex, const Draft& draft) {
    return std::vector{draft, Draft{draft.first, wire::Buffer::Allocate(draft.second.size())}};
  });
}

TEST(HarmlessPeer, MessagesOfAnEarlierAttemptOrStep) {
  ExpectHarmless([](wire::PartyIndex, const Draft& draft) {
    Draft attempt = draft;
    attempt.first.attempt = 0;
    std::vector<Draft> all{attempt, draft};
    if (draft.first.step > 0) {
      Draft step = draft;
      --step.first.step;
      all.insert(all.begin(), step);
    }
    return all;
  });
}

TEST(HarmlessPeer, AnAbortOfAnEarlierAttempt) {
  ExpectHarmless([](wire::PartyIndex, const Draft& draft) {
    wire::Buffer body = wire::Buffer::Allocate(2);
    body.writable()[1] = 1;
    Draft abort{draft.first, body};
    abort.first.kind = MessageKind::kAbort;
    abort.first.attempt = 0;
    return std::vector{abort, draft};
  });
}

}  // namespace
}  // namespace pcmoe::testing_federation
