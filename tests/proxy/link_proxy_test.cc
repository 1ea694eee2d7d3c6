// tests/proxy/link_proxy_test.cc: the emulated link is as long and as narrow as it was asked to be.
#include "tests/proxy/link_proxy.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "gtest/gtest.h"

namespace pcmoe::tests {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// A listening socket, and a connection to it through a proxy.
class LinkProxyTest : public testing::Test {
 protected:
  LinkProxyTest() : listener_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address = Loopback(0);
    socklen_t size = sizeof(address);
    auto* const generic = reinterpret_cast<sockaddr*>(&address);
    EXPECT_EQ(::bind(listener_, generic, size), 0);
    EXPECT_EQ(::listen(listener_, 8), 0);
    ::getsockname(listener_, generic, &size);
    options_.target_port = ntohs(address.sin_port);
  }
  ~LinkProxyTest() override {
    for (const int fd : {client_, server_, listener_}) {
      if (fd >= 0) ::close(fd);
    }
  }

  static sockaddr_in Loopback(uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
  }
  void Connect() {
    auto proxy = LinkProxy::Start(options_);
    ASSERT_TRUE(proxy.ok()) << proxy.status();
    proxy_ = *std::move(proxy);
    Dial();
    server_ = ::accept(listener_, nullptr, nullptr);
    const int on = 1;
    for (const int fd : {client_, server_}) {
      ASSERT_GE(fd, 0);
      ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    }
  }
  void Dial() {
    client_ = ::socket(AF_INET, SOCK_STREAM, 0);
    const sockaddr_in address = Loopback(proxy_->port());
    ASSERT_EQ(::connect(client_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  }
  static void Send(int fd, size_t bytes) {
    std::vector<char> data(bytes);
    for (size_t i = 0; i < bytes; ++i) data[i] = static_cast<char>(i * 31 % 251);
    for (size_t done = 0; done < bytes;) {
      const ssize_t count = ::send(fd, data.data() + done, bytes - done, MSG_NOSIGNAL);
      if (count <= 0) return;
      done += static_cast<size_t>(count);
    }
  }
  // Bytes received in order and undamaged; fewer than `bytes` when the connection ended.
  static size_t Receive(int fd, size_t bytes) {
    std::vector<char> data(1 << 16);
    size_t done = 0;
    while (done < bytes) {
      const ssize_t count = ::recv(fd, data.data(), std::min(data.size(), bytes - done), 0);
      if (count <= 0) return done;
      for (ssize_t i = 0; i < count; ++i, ++done) {
        if (data[static_cast<size_t>(i)] != static_cast<char>(done * 31 % 251)) return done;
      }
    }
    return done;
  }
  static bool HasInput(int fd, int milliseconds) {
    timeval limit{milliseconds / 1000, 1000 * (milliseconds % 1000)};
    fd_set set;
    FD_ZERO(&set);
    FD_SET(fd, &set);
    return ::select(fd + 1, &set, nullptr, nullptr, &limit) == 1;
  }

  LinkOptions options_;
  std::unique_ptr<LinkProxy> proxy_;
  int listener_;
  int client_ = -1;
  int server_ = -1;
};

TEST_F(LinkProxyTest, DelayIsWithinTenPercent) {
  options_.one_way_delay = std::chrono::milliseconds(10);
  options_.bits_per_second = 100e6;
  Connect();
  std::vector<double> round_trips;
  for (int i = 0; i < 31; ++i) {
    const auto start = Clock::now();
    Send(client_, 100);
    ASSERT_EQ(Receive(server_, 100), 100U);
    Send(server_, 100);
    ASSERT_EQ(Receive(client_, 100), 100U);
    round_trips.push_back(SecondsSince(start));
  }
  std::ranges::sort(round_trips);
  EXPECT_NEAR(round_trips[15], 0.020, 0.002);
  EXPECT_GE(round_trips[0], 0.020);
}

// What else the machine does can only make it slower: it is never too fast, and not too slow in the
// best of some tries. The queue has 160 ms, so that a thread that is woken late leaves no gap on
// the wire, which nothing could make up for.
TEST_F(LinkProxyTest, RateIsWithinFivePercentInBothDirectionsAtOnce) {
  options_.one_way_delay = std::chrono::milliseconds(10);
  options_.bits_per_second = 100e6;
  options_.queue_bytes = 2'000'000;
  Connect();
  constexpr size_t kBytes = 25'000'000;  // two seconds
  constexpr int kMostTries = 5;
  size_t sent = 0;
  double slowest = 0;  // bit/s of the slower direction, in the best try so far
  for (int tries = 0; tries < kMostTries && slowest < 95e6; ++tries) {
    double seconds[2] = {0, 0};
    const auto start = Clock::now();
    std::thread threads[] = {std::thread([&] { Send(client_, kBytes); }),
                             std::thread([&] { Send(server_, kBytes); }), std::thread([&] {
                               EXPECT_EQ(Receive(server_, kBytes), kBytes);
                               seconds[0] = SecondsSince(start);
                             }),
                             std::thread([&] {
                               EXPECT_EQ(Receive(client_, kBytes), kBytes);
                               seconds[1] = SecondsSince(start);
                             })};
    for (std::thread& thread : threads) thread.join();
    sent += kBytes;
    const auto rate = [](double measured) { return 8 * kBytes / (measured - 0.010); };
    EXPECT_LE(rate(std::min(seconds[0], seconds[1])), 105e6);
    slowest = std::max(slowest, rate(std::max(seconds[0], seconds[1])));
  }
  EXPECT_GE(slowest, 95e6);
  // The proxy counts a piece after it was sent, so its receiver may be a moment ahead of the count.
  const auto patience = Clock::now() + std::chrono::seconds(10);
  while (Clock::now() < patience &&
         (proxy_->forwarded_bytes() < sent || proxy_->returned_bytes() < sent)) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(proxy_->forwarded_bytes(), sent);
  EXPECT_EQ(proxy_->returned_bytes(), sent);
}

TEST_F(LinkProxyTest, AFullLinkPushesBack) {
  options_.bits_per_second = 1e6;
  options_.queue_bytes = 10'000;
  Connect();
  std::thread sender([&] { Send(client_, 50'000'000); });
  ASSERT_EQ(Receive(server_, 50'000), 50'000U);
  // What the sender got rid of beyond that lies in buffers of the kernel: a few megabytes.
  EXPECT_LT(proxy_->forwarded_bytes(), 100'000U);
  ::shutdown(server_, SHUT_RDWR);
  proxy_->SetCut(true);
  ::shutdown(client_, SHUT_RDWR);
  sender.join();
}

TEST_F(LinkProxyTest, ACutLinkBreaksAndComesBack) {
  Connect();
  Send(client_, 10);
  ASSERT_EQ(Receive(server_, 10), 10U);
  proxy_->SetCut(true);
  EXPECT_EQ(Receive(client_, 1), 0U);
  EXPECT_EQ(Receive(server_, 1), 0U);
  ::close(client_);
  Dial();
  EXPECT_EQ(Receive(client_, 1), 0U) << "closed at once";
  proxy_->SetCut(false);
  ::close(client_);
  Dial();
  ::close(server_);
  server_ = ::accept(listener_, nullptr, nullptr);
  Send(client_, 10);
  EXPECT_EQ(Receive(server_, 10), 10U);
}

TEST_F(LinkProxyTest, AHungLinkIsSilentAndLosesNothing) {
  Connect();
  proxy_->SetHang(true);
  Send(client_, 1000);
  EXPECT_FALSE(HasInput(server_, 100));
  proxy_->SetHang(false);
  EXPECT_EQ(Receive(server_, 1000), 1000U);
}

TEST_F(LinkProxyTest, TheEndOfADirectionPassesAfterItsBytes) {
  options_.one_way_delay = std::chrono::milliseconds(5);
  Connect();
  Send(client_, 5000);
  ::shutdown(client_, SHUT_WR);
  EXPECT_EQ(Receive(server_, 6000), 5000U);
  Send(server_, 100);
  EXPECT_EQ(Receive(client_, 100), 100U);
}

}  // namespace
}  // namespace pcmoe::tests
