// pcmoe/cli/sim_test.cc: what a sim says of its children and of its comparisons.
#include <csignal>
#include <nlohmann/json.hpp>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "pcmoe/cli/sim_compare.h"
#include "pcmoe/cli/sim_process.h"

namespace pcmoe::cli {
namespace {

using testing::HasSubstr;

TEST(SimTest, LastSentenceIsTheLastLineThatPcmoeSays) {
  EXPECT_EQ(LastSentence("pcmoe: one"), "one");
  EXPECT_EQ(LastSentence("x\npcmoe: one\npcmoe: two\nmore\n"), "two");
  EXPECT_EQ(LastSentence("x pcmoe: not at the start\n"), "");
  EXPECT_EQ(LastSentence(""), "");
}

TEST(SimTest, ChildsExitCodeBecomesOurs) {
  for (int code = 0; code <= 5; ++code) {
    const absl::Status status =
        StatusOfChild("b", code << 8, "what happened");  // as wait(2) packs it
    EXPECT_EQ(static_cast<int>(ExitCodeOf(status)), code);
    EXPECT_EQ(status.message(), code > 0 ? "b: what happened" : "");
  }
  const absl::Status killed = StatusOfChild("b", SIGKILL, "");
  EXPECT_EQ(ExitCodeOf(killed), ExitCode::kRunFailed);
  EXPECT_THAT(std::string(killed.message()), HasSubstr("signal 9"));
}

TEST(SimTest, WithExpertsChangesTheExpertsAlone) {
  const auto text =
      WithExperts(R"({"num_local_experts": 8, "num_experts_per_tok": 4, "x": [1]})", 2, 4);
  ASSERT_TRUE(text.ok()) << text.status();
  const auto json = nlohmann::json::parse(*text);
  EXPECT_EQ(json,
            (nlohmann::json{{"num_local_experts", 2}, {"num_experts_per_tok", 2}, {"x", {1}}}));
  EXPECT_FALSE(WithExperts("{}", 2, 2).ok());
  EXPECT_FALSE(WithExperts("not json", 2, 2).ok());
}

TEST(SimTest, VerdictsSayWhoLoses) {
  SimOutcome ours{.name = "federated",
                  .eval_loss = {{"a", 4.0}, {"b", 5.0}},
                  .states_bytes = 30,
                  .resident_bytes = 90,
                  .tokens_per_s = 50};
  SimOutcome central{.name = "central",
                     .eval_loss = {{"a", 3.9}, {"b", 4.9}},
                     .states_bytes = 100,
                     .resident_bytes = 100,
                     .tokens_per_s = 100};
  SimOutcome alone{.name = "alone", .eval_loss = {{"a", 4.5}, {"b", 4.9}}};
  const std::vector<std::string> verdicts = VerdictsOf({ours, central, alone});
  ASSERT_EQ(verdicts.size(), 4);
  EXPECT_THAT(verdicts[0], HasSubstr("loses to central by 0.100 nats"));
  EXPECT_THAT(verdicts[1], HasSubstr("beats alone by 0.200 nats"));
  EXPECT_THAT(verdicts[1], HasSubstr("but not for b"));
  EXPECT_THAT(verdicts[2], HasSubstr("70.0 % less of states"));
  EXPECT_THAT(verdicts[3], HasSubstr("loses to central in speed: 0.50 x"));
}

}  // namespace
}  // namespace pcmoe::cli
