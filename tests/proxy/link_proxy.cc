// tests/proxy/link_proxy.cc: see link_proxy.h.
#include "tests/proxy/link_proxy.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <deque>
#include <utility>
#include <vector>

namespace pcmoe::tests {
namespace {

// Small enough that a chunk's own time on the wire (0.7 ms at 100 Mbit/s) is small against delays.
constexpr size_t kChunkBytes = 8 << 10;
// The kernel's own buffers would be a queue of unknown length in front of ours.
constexpr int kSocketBufferBytes = 64 << 10;
// In flight without a rate limit, where the delay alone would not bound it.
constexpr size_t kMaxFlightBytes = size_t{256} << 20;

void Tune(int fd) {
  const int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

bool WriteAll(int fd, const std::vector<char>& bytes) {
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t count = ::send(fd, bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL);
    if (count <= 0) return false;
    done += static_cast<size_t>(count);
  }
  return true;
}

}  // namespace

// Two sockets and, for each direction (0: to the target), what is under way.
struct LinkProxy::Connection {
  struct Chunk {
    Clock::time_point deliver_at;
    std::vector<char> bytes;  // empty: the sender has finished
  };
  int fd[2] = {-1, -1};  // client, target
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<Chunk> flight[2];      // guarded by mutex
  size_t flight_bytes[2] = {0, 0};  // guarded by mutex
  bool broken = false;              // guarded by mutex
  std::atomic<bool> finished = false;
  std::thread server;

  void Break() {
    const std::lock_guard lock(mutex);
    broken = true;
    for (const int socket : fd) {
      if (socket >= 0) ::shutdown(socket, SHUT_RDWR);
    }
    changed.notify_all();
  }
};

absl::StatusOr<std::unique_ptr<LinkProxy>> LinkProxy::Start(const LinkOptions& options) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  // Accepted sockets inherit it, before the window is announced.
  ::setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &kSocketBufferBytes, sizeof(kSocketBufferBytes));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(options.listen_port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  socklen_t size = sizeof(address);
  if (fd < 0 || ::bind(fd, generic, size) != 0 || ::listen(fd, 64) != 0 ||
      ::getsockname(fd, generic, &size) != 0) {
    if (fd >= 0) ::close(fd);
    return absl::FailedPreconditionError(
        absl::StrCat("link_proxy: cannot listen on 127.0.0.1:", options.listen_port));
  }
  return std::unique_ptr<LinkProxy>(new LinkProxy(options, fd, ntohs(address.sin_port)));
}

LinkProxy::LinkProxy(const LinkOptions& options, int listen_fd, uint16_t port)
    : options_(options), listen_fd_(listen_fd), port_(port) {
  acceptor_ = std::thread([this] { AcceptLoop(); });
}

LinkProxy::~LinkProxy() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    for (const auto& connection : connections_) connection->Break();
    changed_.notify_all();
  }
  ::shutdown(listen_fd_, SHUT_RDWR);
  acceptor_.join();
  for (const auto& connection : connections_) connection->server.join();
  ::close(listen_fd_);
}

void LinkProxy::SetCut(bool cut) {
  const std::lock_guard lock(mutex_);
  cut_ = cut;
  if (!cut) return;
  for (const auto& connection : connections_) connection->Break();
  changed_.notify_all();
}

void LinkProxy::SetHang(bool hang) {
  const std::lock_guard lock(mutex_);
  hang_ = hang;
  changed_.notify_all();
}

int LinkProxy::ConnectToTarget() const {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (::getaddrinfo(options_.target_host.c_str(), std::to_string(options_.target_port).c_str(),
                    &hints, &found) != 0) {
    return -1;
  }
  int fd = ::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ::setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &kSocketBufferBytes, sizeof(kSocketBufferBytes));
  if (fd >= 0 && ::connect(fd, found->ai_addr, found->ai_addrlen) != 0) {
    ::close(std::exchange(fd, -1));
  }
  ::freeaddrinfo(found);
  return fd;
}

void LinkProxy::AcceptLoop() {
  while (true) {
    const int fd = ::accept4(listen_fd_, nullptr, nullptr, SOCK_CLOEXEC);
    const std::lock_guard lock(mutex_);
    if (stopping_ || fd < 0) {
      if (fd >= 0) ::close(fd);
      return;
    }
    std::erase_if(connections_, [](const auto& connection) {
      if (!connection->finished) return false;
      connection->server.join();
      return true;
    });
    if (cut_) {
      ::close(fd);
      continue;
    }
    Connection& connection = *connections_.emplace_back(std::make_unique<Connection>());
    connection.fd[0] = fd;
    connection.server = std::thread([this, &connection] { Serve(connection); });
  }
}

void LinkProxy::Serve(Connection& connection) {
  const int target = ConnectToTarget();
  bool usable = target >= 0;
  {
    const std::lock_guard lock(connection.mutex);
    connection.fd[1] = target;
    usable = usable && !connection.broken;
  }
  if (usable) {
    Tune(connection.fd[0]);
    Tune(target);
    std::thread threads[] = {std::thread([&] { ReadLoop(connection, 0); }),
                             std::thread([&] { ReadLoop(connection, 1); }),
                             std::thread([&] { WriteLoop(connection, 0); }),
                             std::thread([&] { WriteLoop(connection, 1); })};
    for (std::thread& thread : threads) thread.join();
  }
  const std::lock_guard lock(connection.mutex);
  for (int& fd : connection.fd) {
    if (fd >= 0) ::close(std::exchange(fd, -1));
  }
  connection.finished = true;
}

// Puts `bytes` on the wire of `direction` and gives the time at which they are through it.
LinkProxy::Clock::time_point LinkProxy::Occupy(int direction, size_t bytes) {
  const std::lock_guard lock(mutex_);
  const Clock::time_point now = Clock::now();
  if (options_.bits_per_second <= 0) return now;
  Clock::time_point& free_at = wire_free_[direction];
  const std::chrono::duration<double> time(8.0 * static_cast<double>(bytes) /
                                           options_.bits_per_second);
  free_at = std::max(free_at, now) + std::chrono::duration_cast<Clock::duration>(time);
  return free_at;
}

void LinkProxy::ReadLoop(Connection& connection, int direction) {
  const auto queue_time =
      options_.bits_per_second <= 0
          ? std::chrono::duration<double>(0)
          : std::chrono::duration<double>(8.0 * static_cast<double>(options_.queue_bytes) /
                                          options_.bits_per_second);
  while (true) {
    std::vector<char> bytes(kChunkBytes);
    const ssize_t count = ::recv(connection.fd[direction], bytes.data(), bytes.size(), 0);
    bytes.resize(count > 0 ? static_cast<size_t>(count) : 0);
    const bool last = bytes.empty();
    const Clock::time_point through = Occupy(direction, bytes.size());
    {
      std::unique_lock lock(connection.mutex);
      if (connection.broken) return;
      connection.flight_bytes[direction] += bytes.size();
      connection.flight[direction].push_back({through + options_.one_way_delay, std::move(bytes)});
      connection.changed.notify_all();
      connection.changed.wait(lock, [&] {
        return connection.broken || connection.flight_bytes[direction] < kMaxFlightBytes;
      });
      if (last || connection.broken) return;
      const auto resume = through - std::chrono::duration_cast<Clock::duration>(queue_time);
      connection.changed.wait_until(lock, resume, [&] { return connection.broken; });
    }
  }
}

void LinkProxy::WriteLoop(Connection& connection, int direction) {
  const int to = connection.fd[1 - direction];
  while (true) {
    Connection::Chunk chunk;
    {
      std::unique_lock lock(connection.mutex);
      auto& flight = connection.flight[direction];
      connection.changed.wait(lock, [&] { return connection.broken || !flight.empty(); });
      if (connection.broken) return;
      chunk = std::move(flight.front());
      flight.pop_front();
      connection.changed.wait_until(lock, chunk.deliver_at, [&] { return connection.broken; });
      if (connection.broken) return;
      connection.flight_bytes[direction] -= chunk.bytes.size();
      connection.changed.notify_all();
    }
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return !hang_ || cut_ || stopping_; });
    }
    if (chunk.bytes.empty()) {
      ::shutdown(to, SHUT_WR);
      return;
    }
    if (!WriteAll(to, chunk.bytes)) {
      connection.Break();
      return;
    }
    forwarded_[direction] += chunk.bytes.size();
  }
}

}  // namespace pcmoe::tests
