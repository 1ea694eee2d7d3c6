// pcmoe/border/pairwise_masks_test.cc: masks cancel, never come twice, and depend on everything.
#include "pcmoe/border/pairwise_masks.h"

#include <bit>
#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "pcmoe/border/fixed_point.h"
#include "pcmoe/border/test_federation.h"

namespace pcmoe::border {
namespace {

using testing::HasSubstr;
using Words = std::vector<uint32_t>;

// The mask itself: the share of zeros.
Words MaskOf(PairwiseMasks& masks, const MaskPlace& place, const std::vector<int>& peers,
             size_t count = 4000) {
  const Words zeros(count);
  Words share(count);
  const auto status = MaskIntegers(zeros.data(), count, place, peers, masks, share.data());
  EXPECT_TRUE(status.ok()) << status;
  return share;
}

// Unrelated streams of 4,000 words differ in about half their bits: 64,000 with a standard
// deviation of 179; six of them are a false alarm once in 5e8.
void ExpectUnrelated(const Words& a, const Words& b) {
  int64_t bits = 0;
  for (size_t i = 0; i < a.size(); ++i) bits += std::popcount(a[i] ^ b[i]);
  EXPECT_NEAR(static_cast<double>(bits), 16.0 * static_cast<double>(a.size()), 6 * 179);
}

TEST(PairwiseMasks, CancelBitForBit) {
  constexpr size_t kCount = 3 * NetMask::kBlockWords + 77;
  for (int n = 3; n <= 16; ++n) {
    auto masks = MakeFederation(n);
    const int owner = n / 2;
    Words sum(kCount);
    for (int party = 0; party < n; ++party) {
      if (party == owner) continue;
      const Words share = MaskOf(masks[party], {9, 1, 2}, PeersOf(party, n, owner), kCount);
      EXPECT_NE(share, Words(kCount));
      AddInto(sum.data(), reinterpret_cast<const uint8_t*>(share.data()), kCount);
    }
    EXPECT_EQ(sum, Words(kCount)) << n;
  }
}

TEST(PairwiseMasks, TakeEveryPlaceOnce) {
  auto masks = MakeFederation(3);
  const std::vector<int> peers = {1};
  MaskOf(masks[0], {5, 1, 1}, peers);
  const Words values = {1, 2, 3};
  Words out(3);
  const auto again = [&](const MaskPlace& place) {
    return MaskIntegers(values.data(), 3, place, peers, masks[0], out.data());
  };
  EXPECT_EQ(again({5, 1, 1}).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(out, Words(3));
  EXPECT_TRUE(again({5, 1, 2}).ok());
  EXPECT_TRUE(again({5, 2, 1}).ok());
  EXPECT_TRUE(again({6, 1, 1}).ok());
  // Step 5 is over, taken or not; and so it stays after a step was taken again.
  EXPECT_EQ(again({5, 1, 1}).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(again({5, 9, 9}).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(again({6, 1, 1}).code(), absl::StatusCode::kFailedPrecondition);
  // A writer takes its place too, and other peers do not make it another place.
  const auto rounding = RoundingKey::Derive({}, {});
  EXPECT_EQ(
      MaskedWriter::Create(FixedPoint{}, *rounding, {6, 1, 1}, std::vector<int>{1, 2}, masks[0])
          .status()
          .code(),
      absl::StatusCode::kFailedPrecondition);
}

TEST(PairwiseMasks, DependOnEveryPartOfPlaceAndContext) {
  const MaskContext context{{1}, 7, 2};
  const MaskPlace place{8, 3, 4};
  const auto mask = [](const MaskContext& of, const MaskPlace& at, uint8_t seed = 1, int peer = 1) {
    auto masks = MakeFederation(3, of, seed);
    return MaskOf(masks[0], at, {peer});
  };
  const Words first = mask(context, place);
  EXPECT_EQ(first, mask(context, place));
  // The places also differ by more than a block: streams do not overlap.
  for (const MaskPlace& other : {MaskPlace{9, 3, 4}, MaskPlace{8, 4, 4}, MaskPlace{8, 3, 5},
                                 MaskPlace{8, 4, 3}, MaskPlace{(1ULL << 48) - 1, 3, 4}}) {
    ExpectUnrelated(first, mask(context, other));
  }
  for (const MaskContext& other :
       {MaskContext{{2}, 7, 2}, MaskContext{{1}, 8, 2}, MaskContext{{1}, 7, 3}}) {
    ExpectUnrelated(first, mask(other, place));
  }
  ExpectUnrelated(first, mask(context, place, 2));  // other keys
  ExpectUnrelated(first, mask(context, place, 1, 2));
}

TEST(PairwiseMasks, OfTwoMeetingsAreUnrelatedThoughNothingElseDiffers) {
  // Killed and started again, a federation meets at the same run, step and attempt.
  const MaskContext context{{1}, 7, 0};
  const auto meet = [&context] {
    std::vector<MaskKeyPair> keys;
    for (int party = 0; party < 3; ++party) keys.push_back(MaskKeyPair::Generate());
    auto masks = PairwiseMasks::Create(0, keys[0], PublicKeys(keys), context);
    return MaskOf(*masks, {8, 0, 0}, {1, 2});
  };
  ExpectUnrelated(meet(), meet());
}

TEST(PairwiseMasks, BlocksOfDifferentPlacesNeverMeet) {
  // The last four bytes, which count, start at zero; the rest holds every bit of the place.
  std::set<CounterStream::Block> blocks;
  for (const uint64_t step : {0ULL, 1ULL, 256ULL, (1ULL << 48) - 1}) {
    for (const uint32_t layer : {0, 1, 256, 65535}) {
      for (const uint32_t unit : {0U, 1U, 65536U, ~0U}) {
        const auto block = FirstBlockOf({step, static_cast<uint16_t>(layer), unit});
        ASSERT_TRUE(block.ok());
        EXPECT_EQ((*block)[12] | (*block)[13] | (*block)[14] | (*block)[15], 0);
        EXPECT_TRUE(blocks.insert(*block).second);
      }
    }
  }
  EXPECT_EQ(FirstBlockOf({1ULL << 48, 0, 0}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(kMaxMaskWords * 4 / 16, 1ULL << 32);
}

TEST(PairwiseMasks, RefuseKeysThatCannotBe) {
  const auto keys = MakeKeys(3);
  const auto create = [&keys](int self, std::vector<MaskPublicKey> public_keys) {
    const auto masks = PairwiseMasks::Create(self, keys[0], public_keys, {});
    EXPECT_EQ(masks.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(masks.status().message());
  };
  const auto good = PublicKeys(keys);
  EXPECT_THAT(create(1, good), HasSubstr("not the one it told"));
  EXPECT_THAT(create(3, good), HasSubstr("two parties or more"));
  EXPECT_THAT(create(-1, good), HasSubstr("two parties or more"));
  EXPECT_THAT(create(0, {good[0]}), HasSubstr("two parties or more"));
  EXPECT_THAT(create(0, {good[0], good[1], good[1]}), HasSubstr("same mask key"));
  EXPECT_THAT(create(0, {good[0], good[0], good[2]}), HasSubstr("same mask key"));
  EXPECT_THAT(create(0, {good[0], good[1], MaskPublicKey{}}), HasSubstr("small order"));
}

TEST(PairwiseMasks, RefusePeersThatCannotBe) {
  auto masks = MakeFederation(3);
  const uint32_t value = 7;
  uint32_t out = 0;
  const auto with = [&](const std::vector<int>& peers) {
    return MaskIntegers(&value, 1, {1, 2, 3}, peers, masks[0], &out).code();
  };
  for (const std::vector<int>& peers :
       {std::vector<int>{}, {0}, {0, 1}, {1, 1}, {3}, {-1}, {1, 2, 2}}) {
    EXPECT_EQ(with(peers), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(out, 0U);
  }
  EXPECT_EQ(with({1, 2}), absl::StatusCode::kOk);  // a refusal takes no place
  masks[1].AllowNoPeers();
  EXPECT_TRUE(MaskIntegers(&value, 1, {1, 2, 3}, {}, masks[1], &out).ok());
  EXPECT_EQ(out, 7U);
}

}  // namespace
}  // namespace pcmoe::border
