// tests/federation/hostile_weights_test.cc: a party that breaks the rules of the exchange
// `weights`: nobody's weights change, the culprit is named, nobody hangs. What is only wrong in
// value inside a masked sum cannot be seen by anybody; it stays finite.
#include <ATen/Parallel.h>
#include <ATen/ops/isfinite.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <limits>
#include <random>

#include "misdeeds.h"
#include "party_threads.h"
#include "pcmoe/border/mask_keys.h"

namespace pcmoe::testing_federation {
namespace {

using exchange::AbortReason;
using testing::HasSubstr;
using testing::IsEmpty;
using wire::MessageKind;

constexpr int kParties = 3;
constexpr int kBad = 1;  // party b

const transport::TestParties& Identities() {
  static const transport::TestParties parties(kParties);
  return parties;
}

// As a run signs and checks them.
exchange::MaskKeySigner SignedKeys(int self) {
  const transport::GrpcChannelOptions options = Identities().Options(self);
  return {.sign =
              [options, self](const border::MaskKeyPair& key, const border::MaskContext& context) {
                return border::SignMaskKey(key, context, self, options.certificate_pem,
                                           options.key_pem);
              },
          .verify =
              [options](std::span<const uint8_t> share, const border::MaskContext& context,
                        wire::PartyIndex party) {
                return border::VerifyMaskKey(share, context, party,
                                             options.parties[static_cast<size_t>(party)].identity,
                                             options.ca_pem);
              }};
}

Recipe TheRecipe(int steps) {
  at::set_num_threads(1);
  Recipe recipe = SmallRecipe("olmoe");
  recipe.parties = kParties;
  recipe.steps = steps;
  recipe.weights = exchange::WeightsProvider::Options{.min_rows = 20};
  recipe.modes = {exchange::PartMode::kAggregated, exchange::PartMode::kFrozen,
                  exchange::PartMode::kPrivate};
  recipe.signer = SignedKeys;
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

// A mask key told in the first step, by whomever and for whatever.
Misdeed SignedBy(std::string name, int signer, int as, const border::MaskContext& context) {
  Misdeed misdeed = Payload(std::move(name), MessageKind::kMaskKey, [=](const wire::Buffer&) {
    const transport::GrpcChannelOptions options = Identities().Options(signer);
    return *border::SignMaskKey(border::MaskKeyPair::Generate(), context, as,
                                options.certificate_pem, options.key_pem);
  });
  misdeed.step = 0;
  misdeed.words = "mask key";
  return misdeed;
}

std::vector<Misdeed> MaskKeyMisdeeds() {
  const border::MaskContext now{.step = 0, .attempt = 1};
  std::vector<Misdeed> all;
  all.push_back(SignedBy("of_party_c", 2, 2, now));
  all.push_back(SignedBy("by_party_c_as_if_b", 2, kBad, now));
  all.push_back(SignedBy("as_if_party_c", kBad, 2, now));
  all.push_back(SignedBy("of_another_attempt", kBad, kBad, {.step = 0, .attempt = 2}));
  all.push_back(SignedBy("of_another_step", kBad, kBad, {.step = 1, .attempt = 1}));
  all.push_back(SignedBy("of_another_run", kBad, kBad, {.run = {9}, .step = 0, .attempt = 1}));
  for (const double part : {0.0, 0.05, 0.5, 0.98}) {
    all.push_back(Payload(absl::StrCat("with_a_byte_flipped_at_", 100 * part),
                          MessageKind::kMaskKey, [part](const wire::Buffer& b) {
                            const auto at =
                                static_cast<size_t>(part * static_cast<double>(b.size()));
                            return With(b, at, static_cast<uint8_t>(b.bytes()[at] ^ 4));
                          }));
  }
  all.push_back(Payload("truncated", MessageKind::kMaskKey, Longer(-1)));
  all.push_back(Payload("oversized", MessageKind::kMaskKey, Longer(1)));
  all.push_back(Payload("huge", MessageKind::kMaskKey, Longer(5 << 20)));
  all.push_back(
      Payload("empty", MessageKind::kMaskKey, [](const wire::Buffer&) { return wire::Buffer(); }));
  all.push_back(Silence(MessageKind::kMaskKey));
  for (Misdeed& misdeed : all) misdeed.step = 0;
  return all;
}

// The message, and a second one like it at another place.
Misdeed Also(std::string name, MessageKind kind, uint16_t layer_more, uint16_t micro_batch) {
  return {std::move(name), kind,
          [=](const Draft& draft) -> std::vector<Draft> {
            Draft more = draft;
            more.first.layer = static_cast<uint16_t>(more.first.layer + layer_more);
            more.first.micro_batch = micro_batch;
            return {more, draft};
          },
          AbortReason::kBadMessage};
}

std::vector<Misdeed> PassMisdeeds() {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  std::vector<Misdeed> all;
  for (const auto kind : {MessageKind::kUnitWeights, MessageKind::kExponents,
                          MessageKind::kMaskedGradients, MessageKind::kMaskedCounts}) {
    const std::string name(NameOf(kind));
    all.push_back(Payload("truncated_" + name, kind, Longer(-1)));
    all.push_back(Payload("oversized_" + name, kind, Longer(64)));
    all.push_back(Payload("huge_" + name, kind, Longer(9 << 20)));
    all.push_back(
        Payload("empty_" + name, kind, [](const wire::Buffer&) { return wire::Buffer(); }));
    all.push_back(Silence(kind));
  }
  for (const auto kind : {MessageKind::kExponents, MessageKind::kMaskedGradients}) {
    const std::string name(NameOf(kind));
    all.push_back(Also(name + "_twice", kind, 0, 7));
    all.push_back(Also(name + "_of_a_layer_that_is_not_there", kind, 77, 0));
  }
  for (const uint64_t version : {0, 1, 3, -1}) {
    all.push_back(Payload(absl::StrCat("weights_of_version_", version), MessageKind::kUnitWeights,
                          [=](const wire::Buffer& b) { return With(b, 0, version); }));
    all.back().words = "version";
  }
  for (const float value : {nan, infinity, -infinity}) {
    all.push_back(Payload(
        absl::StrCat("first_weight_", std::signbit(value) ? "minus_" : "", value),
        MessageKind::kUnitWeights, [=](const wire::Buffer& b) { return With(b, 64, value); },
        AbortReason::kNotFinite));
  }
  all.back().name = "first_weight_below_all";
  all.push_back(Payload(
      "nan_among_weights", MessageKind::kUnitWeights,
      [=](const wire::Buffer& b) { return With(b, 64 + (b.size() - 64) / 2 / 64 * 64, nan); },
      AbortReason::kNotFinite));
  all.push_back(Payload(
      "exponent_of_nan", MessageKind::kExponents,
      [](const wire::Buffer& b) { return With(b, 1, uint8_t{255}); }, AbortReason::kNotFinite));
  return all;
}

class HostileWeights : public testing::TestWithParam<Misdeed> {};

TEST_P(HostileWeights, ChangesNoWeightAndIsNamed) {
  const Misdeed& misdeed = GetParam();
  Recipe recipe = TheRecipe(4);
  recipe.peer_timeout = misdeed.reason == AbortReason::kTimeout ? kShortTimeout : absl::Seconds(30);
  const auto outcomes = RunWithBad(recipe, Doing(misdeed));
  const std::vector<Outcome>& wanted = Undisturbed(static_cast<int>(misdeed.step));
  const auto failure = exchange::FailureIn(outcomes[0].status);
  ASSERT_TRUE(failure.has_value()) << outcomes[0].status;
  EXPECT_EQ(failure->culprit, misdeed.culprit) << outcomes[0].status;
  const bool hung_up =
      misdeed.reason == AbortReason::kTimeout && failure->reason == AbortReason::kPeerLost;
  EXPECT_TRUE(failure->reason == misdeed.reason || hung_up) << outcomes[0].status;
  EXPECT_THAT(std::string(outcomes[0].status.message()), HasSubstr(misdeed.words));
  for (const size_t honest : {0U, 2U}) {
    EXPECT_FALSE(outcomes[honest].status.ok());
    EXPECT_THAT(Differences(outcomes[honest].experts, wanted[honest].experts), IsEmpty());
    EXPECT_THAT(Differences(outcomes[honest].backbone, wanted[honest].backbone), IsEmpty());
  }
}

std::string NameOfCase(const testing::TestParamInfo<Misdeed>& each) { return each.param.name; }
INSTANTIATE_TEST_SUITE_P(MaskKey, HostileWeights, testing::ValuesIn(MaskKeyMisdeeds()), NameOfCase);
INSTANTIATE_TEST_SUITE_P(Pass, HostileWeights, testing::ValuesIn(PassMisdeeds()), NameOfCase);

// Keys that are signed well, but made to break the agreement; the signature is not looked at here.
// `key_for_a` is what b tells a, given its own key and another's.
absl::Status StatusOfA(
    int other, const std::function<wire::Buffer(const wire::Buffer&, const wire::Buffer&)>& key) {
  Recipe recipe = TheRecipe(2);
  recipe.signer = nullptr;
  std::promise<wire::Buffer> key_of_other;
  auto channels = LoopbackChannels(recipe.parties);
  const auto of = [&](int party, const Tamper& tamper) {
    auto& channel = channels[static_cast<size_t>(party)];
    channel = std::make_unique<TamperingChannel>(std::move(channel), tamper);
  };
  of(other, [&](wire::PartyIndex to, const Draft& draft) {
    if (draft.first.kind == MessageKind::kMaskKey && to == kBad) {
      key_of_other.set_value(draft.second);
    }
    return std::vector<Draft>{draft};
  });
  of(kBad, [&](wire::PartyIndex to, const Draft& draft) {
    if (draft.first.kind != MessageKind::kMaskKey || to != 0) return std::vector<Draft>{draft};
    return std::vector<Draft>{{draft.first, key(draft.second, key_of_other.get_future().get())}};
  });
  return RunParties(recipe, std::move(channels))[0].status;
}

void ExpectBadMessage(const absl::Status& status, const std::string& words,
                      const std::vector<int>& culprits) {
  const auto failure = exchange::FailureIn(status);
  ASSERT_TRUE(failure.has_value()) << status;
  EXPECT_THAT(culprits, testing::Contains(failure->culprit)) << status;
  EXPECT_EQ(failure->reason, AbortReason::kBadMessage);
  EXPECT_THAT(std::string(status.message()), HasSubstr(words));
}

TEST(HostileMaskKey, OfZerosIsRefused) {
  const auto zeros = [](const wire::Buffer& own, const wire::Buffer&) {
    return wire::Buffer::Allocate(own.size());
  };
  ExpectBadMessage(StatusOfA(2, zeros), "small order", {kBad});
}

TEST(HostileMaskKey, OfSomebodyElseIsRefused) {
  const auto others = [](const wire::Buffer&, const wire::Buffer& other) { return other; };
  ExpectBadMessage(StatusOfA(0, others), "that of party a", {kBad});
  // Which of the two is honest cannot be told from their keys.
  ExpectBadMessage(StatusOfA(2, others), "one of the two copied", {kBad, 2});
}

bool AllFinite(const Weights& weights) {
  for (const auto& [name, tensor] : weights) {
    if (!at::isfinite(tensor).all().item<bool>()) return false;
  }
  return true;
}

// What nobody can see: the step is committed by all or by none, and every weight is finite.
void ExpectFinite(const Tamper& tamper, bool committed) {
  const auto outcomes = RunWithBad(TheRecipe(4), tamper);
  for (const Outcome& outcome : outcomes) {
    EXPECT_EQ(outcome.status.ok(), committed) << outcome.status;
    EXPECT_EQ(outcome.losses.size(), outcomes[0].losses.size());
    EXPECT_TRUE(AllFinite(outcome.experts) && AllFinite(outcome.backbone));
  }
  if (committed) return;
  for (size_t party = 0; party < kParties; ++party) {
    EXPECT_THAT(Differences(outcomes[party].experts, Undisturbed(2)[party].experts), IsEmpty());
    EXPECT_THAT(Differences(outcomes[party].backbone, Undisturbed(2)[party].backbone), IsEmpty());
  }
}

// To everybody, whatever b itself believes.
Tamper Lying(MessageKind kind, const std::function<void(std::span<uint8_t>)>& change) {
  return [=](wire::PartyIndex, const Draft& draft) {
    if (draft.first.kind != kind || draft.first.step != 2) return std::vector<Draft>{draft};
    Draft other{draft.first, Copy(draft.second, draft.second.size())};
    change(other.second.writable());
    return std::vector<Draft>{other};
  };
}

void Randomize(std::span<uint8_t> bytes) {
  std::mt19937 random(5);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
}

TEST(LyingPeer, ExponentsTooSmall) {
  ExpectFinite(Lying(MessageKind::kExponents, [](auto bytes) { std::ranges::fill(bytes, 1); }),
               true);
}

TEST(LyingPeer, ExponentsTooLarge) {
  // 2^-shift of the largest exponent times a sum of masks that do not cancel is over fp32's range.
  ExpectFinite(Lying(MessageKind::kExponents, [](auto bytes) { std::ranges::fill(bytes, 254); }),
               false);
}

TEST(LyingPeer, RandomGradients) {
  ExpectFinite(Lying(MessageKind::kMaskedGradients, Randomize), true);
}

TEST(LyingPeer, RandomCounts) { ExpectFinite(Lying(MessageKind::kMaskedCounts, Randomize), true); }

TEST(HarmlessPeer, EverythingTwice) {
  const auto outcomes = RunWithBad(TheRecipe(4), [](wire::PartyIndex, const Draft& draft) {
    return std::vector{draft, draft,
                       Draft{draft.first, wire::Buffer::Allocate(draft.second.size())}};
  });
  for (size_t party = 0; party < kParties; ++party) {
    ASSERT_TRUE(outcomes[party].status.ok()) << outcomes[party].status;
    EXPECT_THAT(Differences(outcomes[party].experts, Undisturbed(4)[party].experts), IsEmpty());
    EXPECT_THAT(Differences(outcomes[party].backbone, Undisturbed(4)[party].backbone), IsEmpty());
  }
}

}  // namespace
}  // namespace pcmoe::testing_federation
