// pcmoe/federation/placement_test.cc: every expert has one owner; every party has its turn.
#include "pcmoe/federation/placement.h"

#include <algorithm>
#include <set>

#include "gtest/gtest.h"
#include "pcmoe/federation/schedule.h"

namespace pcmoe::federation {
namespace {

std::vector<int> ListOf(std::span<const int> experts) { return {experts.begin(), experts.end()}; }

TEST(PlacementTest, RoundRobinDealsExpertsOut) {
  const auto placement = Placement::Create({}, 2, 10, 4);
  ASSERT_TRUE(placement.ok());
  EXPECT_EQ(ListOf(placement->ExpertsOf(1, 1)), (std::vector<int>{1, 5, 9}));
  EXPECT_EQ(ListOf(placement->ExpertsOf(3, 0)), (std::vector<int>{3, 7}));
  EXPECT_EQ(placement->CountOf(0), 6);
  for (int expert = 0; expert < 10; ++expert) EXPECT_EQ(placement->OwnerOf(1, expert), expert % 4);
}

TEST(PlacementTest, ExplicitListsMayLeaveAPartyWithoutExperts) {
  const auto placement = Placement::Create({{0, 0, 2}, {2, 2, 2}}, 2, 3, 3);
  ASSERT_TRUE(placement.ok());
  EXPECT_EQ(placement->CountOf(1), 0);
  EXPECT_TRUE(placement->ExpertsOf(0, 1).empty());
  EXPECT_EQ(ListOf(placement->ExpertsOf(2, 1)), (std::vector<int>{0, 1, 2}));
}

TEST(PlacementTest, OneListServesAllLayers) {
  const auto placement = Placement::Create({{1, 0}}, 5, 2, 2);
  ASSERT_TRUE(placement.ok());
  for (int layer = 0; layer < 5; ++layer) EXPECT_EQ(placement->OwnerOf(layer, 0), 1);
}

TEST(PlacementTest, ListsThatDoNotFitTheModelAreRefused) {
  EXPECT_FALSE(Placement::Create({{0, 1}, {0, 1}}, 3, 2, 2).ok());
  EXPECT_FALSE(Placement::Create({{0, 1, 1}}, 3, 2, 2).ok());
  EXPECT_FALSE(Placement::Create({{0, 2}}, 1, 2, 2).ok());
  EXPECT_FALSE(Placement::Create({}, 1, 2, 0).ok());
}

TEST(ScheduleTest, EveryRoundTakesEachPartyOnce) {
  std::set<std::vector<int>> orders;
  for (uint64_t round = 0; round < 50; ++round) {
    std::vector<int> order;
    for (uint64_t i = 0; i < 4; ++i) order.push_back(ActiveParty(7, 4 * round + i, 4));
    orders.insert(order);
    std::ranges::sort(order);
    EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3}));
  }
  // 24 orders; 50 draws that show fewer than 12 of them have a probability below 1e-9.
  EXPECT_GE(orders.size(), 12U);
}

TEST(ScheduleTest, TheSeedAloneDecides) {
  int equal = 0;
  for (uint64_t step = 0; step < 400; ++step) {
    EXPECT_EQ(ActiveParty(1, step, 4), ActiveParty(1, step, 4));
    equal += ActiveParty(1, step, 4) == ActiveParty(2, step, 4) ? 1 : 0;
  }
  EXPECT_GT(equal, 40);
  EXPECT_LT(equal, 160);
  EXPECT_EQ(ActiveParty(9, 1234, 1), 0);
}

}  // namespace
}  // namespace pcmoe::federation
