// pcmoe/transport/grpc_death_test.cc: a peer's process that is killed, or stops, is noticed in
// time.
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "pcmoe/transport/test_parties.h"

extern char** environ;

namespace pcmoe::transport {
namespace {

using testing::HasSubstr;

constexpr char kFolderVariable[] = "PCMOE_TEST_PEER_FOLDER";
constexpr char kPartyVariable[] = "PCMOE_TEST_PEER_PARTY";

// Not a test: what the other process runs. It takes every message, until it is killed.
TEST(PeerProcess, DISABLED_Run) {
  const char* folder = std::getenv(kFolderVariable);
  const char* party = std::getenv(kPartyVariable);
  if (folder == nullptr || party == nullptr) return;
  auto channel = CreateGrpcChannel(TestParties(folder).Options(std::atoi(party)));
  while (::getppid() != 1) (*channel)->Next(absl::Now() + absl::Seconds(1));
}

// The parameter: which party the other process is; of the two, party 0 dials.
class GrpcDeathTest : public testing::TestWithParam<int> {
 protected:
  GrpcDeathTest()
      : folder_(std::filesystem::temp_directory_path() / absl::StrCat("pcmoe_peer_", ::getpid())) {
    std::filesystem::create_directories(folder_);
    parties_.Save(folder_);
    ::setenv(kFolderVariable, folder_.c_str(), 1);
    ::setenv(kPartyVariable, std::to_string(GetParam()).c_str(), 1);
    auto channel = CreateGrpcChannel(parties_.Options(1 - GetParam()));
    channel_ = *std::move(channel);
    Start();
  }
  ~GrpcDeathTest() override {
    Kill();
    std::filesystem::remove_all(folder_);
  }

  void Start() {
    const char* const arguments[] = {"/proc/self/exe", "--gtest_also_run_disabled_tests",
                                     "--gtest_filter=PeerProcess.DISABLED_Run", "--gtest_brief=1",
                                     nullptr};
    ASSERT_EQ(::posix_spawn(&child_, arguments[0], nullptr, nullptr,
                            const_cast<char* const*>(arguments), environ),
              0);
    ASSERT_TRUE(NextOf(*channel_, Event::Kind::kPeerUp, absl::Seconds(20)).has_value());
  }
  void Kill() {
    if (child_ <= 0) return;
    ::kill(child_, SIGKILL);
    ::waitpid(child_, nullptr, 0);
    child_ = 0;
  }

  const TestParties parties_{2};
  const std::filesystem::path folder_;
  std::unique_ptr<Channel> channel_;
  border::EgressGate gate_{{}, nullptr};
  pid_t child_ = 0;
};

TEST_P(GrpcDeathTest, KillNineIsNoticedAtOnceAndTheReturnToo) {
  const absl::Time start = absl::Now();
  Kill();
  const auto down = NextOf(*channel_, Event::Kind::kPeerDown);
  ASSERT_TRUE(down.has_value());
  EXPECT_LT(absl::Now() - start, absl::Seconds(1));
  EXPECT_THAT(std::string(down->why.message()), HasSubstr("connection was lost"));
  Start();
  EXPECT_TRUE(channel_->PeerStatus(GetParam()).ok());
}

// Keepalive is 1 s, and 1 s for the answer.
TEST_P(GrpcDeathTest, AStoppedIdleProcessIsNoticedWithinTheKeepalive) {
  ::kill(child_, SIGSTOP);
  const absl::Time start = absl::Now();
  const auto down = NextOf(*channel_, Event::Kind::kPeerDown);
  ASSERT_TRUE(down.has_value());
  EXPECT_LT(absl::Now() - start, absl::Seconds(4));
  EXPECT_THAT(std::string(down->why.message()), HasSubstr("no sign of life for 1 s"));
  // It wakes up, finds the connection gone and makes a new one.
  ::kill(child_, SIGCONT);
  ASSERT_TRUE(NextOf(*channel_, Event::Kind::kPeerUp).has_value());
}

// The sockets are full, so that a ping could not even be sent.
TEST_P(GrpcDeathTest, AStoppedProcessIsNoticedWhileMuchIsSent) {
  std::atomic<bool> down = false;
  std::thread sender([&] {
    while (!down) {
      channel_->Send(TestMessage(gate_, GetParam(), 1, 4'000'000), absl::Now() + absl::Seconds(0.2))
          .IgnoreError();
    }
  });
  absl::SleepFor(absl::Milliseconds(300));
  ::kill(child_, SIGSTOP);
  const absl::Time start = absl::Now();
  EXPECT_TRUE(NextOf(*channel_, Event::Kind::kPeerDown, absl::Seconds(15)).has_value());
  EXPECT_LT(absl::Now() - start, absl::Seconds(6));
  down = true;
  sender.join();
  ::kill(child_, SIGCONT);
}

INSTANTIATE_TEST_SUITE_P(Party, GrpcDeathTest, testing::Values(0, 1));

}  // namespace
}  // namespace pcmoe::transport
