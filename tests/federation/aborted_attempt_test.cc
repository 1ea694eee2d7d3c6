// tests/federation/aborted_attempt_test.cc: an owner that holds the sums of an attempt that was
// aborted, and then those of the step run again, has nothing to subtract: the sums are the same
// bits, and no share, nor any sum of fewer, has anything to do with the attempt before.
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <set>
#include <string>
#include <utility>

#include "party_threads.h"
#include "tampering_channel.h"

namespace pcmoe::testing_federation {
namespace {

using testing::IsEmpty;
using wire::MessageKind;

constexpr int kParties = 4;
constexpr int64_t kAgainStep = 1;
using Words = std::vector<uint32_t>;

// Everybody's shares, as their receivers have them.
struct Noted {
  struct Place {
    MessageKind kind;
    uint64_t step;
    uint32_t attempt;
    int to;
    uint16_t stage;
    auto operator<=>(const Place&) const = default;
  };
  std::mutex mutex;
  std::map<Place, std::map<int, Words>> shares;  // by sender
  std::set<std::string> mask_keys;
};

// Whether all parties have come here, each once.
class Meeting {
 public:
  bool Wait() {
    std::unique_lock lock(mutex_);
    ++here_;
    changed_.notify_all();
    return changed_.wait_for(lock, std::chrono::seconds(60), [&] { return here_ >= kParties; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int here_ = 0;
};

void Note(int from, wire::PartyIndex to, const Draft& draft, Noted& noted) {
  const auto& [header, payload] = draft;
  const auto bytes = payload.bytes();
  const std::lock_guard lock(noted.mutex);
  if (header.kind == MessageKind::kMaskKey) noted.mask_keys.emplace(bytes.begin(), bytes.end());
  if (header.kind != MessageKind::kMaskedGradients && header.kind != MessageKind::kMaskedCounts) {
    return;
  }
  Words words(bytes.size() / 4);
  std::memcpy(words.data(), bytes.data(), bytes.size());
  noted.shares[{header.kind, header.step, header.attempt, to, header.layer}][from] =
      std::move(words);
}

// The first attempt of kAgainStep ends where its votes would be: every owner has every share by
// then.
std::vector<Outcome> RunCut(const Recipe& recipe, Noted& noted) {
  Meeting meeting;
  auto channels = LoopbackChannels(recipe.parties);
  for (int self = 0; self < recipe.parties; ++self) {
    auto& channel = channels[static_cast<size_t>(self)];
    channel = std::make_unique<TamperingChannel>(
        std::move(channel),
        [&, self, met = false](wire::PartyIndex to, const Draft& draft) mutable {
          Note(self, to, draft, noted);
          const wire::MessageHeader& header = draft.first;
          if (header.kind != MessageKind::kVote || header.step != kAgainStep ||
              header.attempt != 1) {
            return std::vector<Draft>{draft};
          }
          if (!std::exchange(met, true)) {
            EXPECT_TRUE(meeting.Wait());
          }
          Draft abort{header, wire::Buffer::Allocate(2)};
          abort.first.kind = MessageKind::kAbort;
          abort.second.writable()[0] = static_cast<uint8_t>(self);
          abort.second.writable()[1] = static_cast<uint8_t>(exchange::AbortReason::kPeerLost);
          return std::vector<Draft>{abort};
        });
  }
  return RunParties(recipe, std::move(channels));
}

// The sum over all senders but `left_out`.
Words SumOf(const std::map<int, Words>& shares, int left_out = -1) {
  Words sum(shares.begin()->second.size(), 0);
  for (const auto& [from, words] : shares) {
    if (from == left_out) continue;
    EXPECT_EQ(words.size(), sum.size());
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += words[i];
  }
  return sum;
}

// Words that are equal, and bits that differ.
struct Comparison {
  uint64_t words = 0, equal = 0, different_bits = 0;
  void Add(const Words& a, const Words& b) {
    ASSERT_EQ(a.size(), b.size());
    words += a.size();
    for (size_t i = 0; i < a.size(); ++i) {
      equal += a[i] == b[i] ? 1 : 0;
      different_bits += static_cast<uint64_t>(std::popcount(a[i] ^ b[i]));
    }
  }
  // Two uniform streams: one equal word in 2^32, and seven standard deviations of the bits (a false
  // alarm in 10^11 runs).
  void ExpectUnrelated() const {
    EXPECT_GT(words, 100'000U);
    EXPECT_LE(equal, 2U);
    const double bits = 32 * static_cast<double>(words);
    EXPECT_NEAR(static_cast<double>(different_bits) / bits, 0.5, 7 * 0.5 / std::sqrt(bits));
  }
};

Recipe TheRecipe(int64_t min_rows) {
  at::set_num_threads(1);
  Recipe recipe = SmallRecipe("olmoe");
  recipe.parties = kParties;
  recipe.steps = 3;
  recipe.weights = exchange::WeightsProvider::Options{.min_rows = min_rows};
  recipe.modes = {exchange::PartMode::kAggregated, exchange::PartMode::kAggregated,
                  exchange::PartMode::kAggregated};
  return recipe;
}

class AbortedAttempt : public testing::TestWithParam<int64_t> {};

TEST_P(AbortedAttempt, LeavesNothingToTakeAndTheRerunIsTheUndisturbedRun) {
  Recipe recipe = TheRecipe(GetParam());
  const auto undisturbed = RunParties(recipe, LoopbackChannels(kParties));
  recipe.again_step = kAgainStep;
  Noted noted;
  const auto outcomes = RunCut(recipe, noted);
  for (size_t party = 0; party < kParties; ++party) {
    ASSERT_TRUE(outcomes[party].status.ok()) << outcomes[party].status;
    EXPECT_THAT(Differences(outcomes[party].experts, undisturbed[party].experts), IsEmpty());
    EXPECT_THAT(Differences(outcomes[party].backbone, undisturbed[party].backbone), IsEmpty());
    EXPECT_EQ(outcomes[party].losses, undisturbed[party].losses);
  }
  EXPECT_EQ(noted.mask_keys.size(), 2U * kParties);  // a fresh one each attempt

  Comparison one, partial;
  size_t sums = 0;
  for (const auto& [place, first] : noted.shares) {
    if (place.step != kAgainStep || place.attempt != 1) continue;
    Noted::Place again = place;
    again.attempt = 2;
    ASSERT_TRUE(noted.shares.contains(again)) << "owner " << place.to;
    const auto& second = noted.shares.at(again);
    ASSERT_EQ(first.size(), static_cast<size_t>(kParties - 1));
    ++sums;
    for (const auto& [from, words] : first) one.Add(words, second.at(from));
    // Counts are summed with the receiver's own, which never left: theirs are all partial.
    if (place.kind == MessageKind::kMaskedCounts) {
      partial.Add(SumOf(first), SumOf(second));
      continue;
    }
    EXPECT_EQ(SumOf(first), SumOf(second)) << "owner " << place.to << " stage " << place.stage;
    for (const auto& [from, words] : first) partial.Add(SumOf(first, from), SumOf(second, from));
    // Another step's sums are others: so the equality is not one of sums that are always alike.
    Noted::Place later = again;
    ++later.step;
    EXPECT_NE(SumOf(first), SumOf(noted.shares.at(later)));
  }
  EXPECT_GT(sums, 4U * kParties);
  one.ExpectUnrelated();
  partial.ExpectUnrelated();
}

// Nothing held; and a bound that some experts reach, some do not.
INSTANTIATE_TEST_SUITE_P(MinRows, AbortedAttempt, testing::Values(0, 100));

}  // namespace
}  // namespace pcmoe::testing_federation
