// tests/proxy/link_proxy.h: a TCP proxy that behaves like a longer and narrower link.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "pcmoe/base/status.h"

namespace pcmoe::tests {

struct LinkOptions {
  uint16_t listen_port = 0;  ///< On 127.0.0.1; 0: any free one.
  std::string target_host = "127.0.0.1";
  uint16_t target_port = 0;
  std::chrono::microseconds one_way_delay{0};
  /// Of each direction, all connections together; 0: no limit. Counts bytes of TCP payload.
  double bits_per_second = 0;
  /// Bytes that wait for their turn in one direction; above that nothing more is read, as by a
  /// router that pushes back instead of dropping.
  uint64_t queue_bytes = 256 << 10;
};

/// Forwards every connection to the target. Each direction is one wire: a byte waits until those
/// before it are through at the rate of the link, and then for the delay. Thread-safe.
class LinkProxy {
 public:
  /// FAILED_PRECONDITION when the port cannot be listened on.
  static absl::StatusOr<std::unique_ptr<LinkProxy>> Start(const LinkOptions& options);
  ~LinkProxy();
  uint16_t port() const { return port_; }

  /// While cut, connections break at once and new ones are closed.
  void SetCut(bool cut);
  /// While hung, connections stand and nothing passes.
  void SetHang(bool hang);
  /// Bytes that have left the proxy towards the target, and back.
  uint64_t forwarded_bytes() const { return forwarded_[0]; }
  uint64_t returned_bytes() const { return forwarded_[1]; }

 private:
  using Clock = std::chrono::steady_clock;
  struct Connection;
  LinkProxy(const LinkOptions& options, int listen_fd, uint16_t port);
  void AcceptLoop();
  void Serve(Connection& connection);
  void ReadLoop(Connection& connection, int direction);
  void WriteLoop(Connection& connection, int direction);
  Clock::time_point Occupy(int direction, size_t bytes);
  int ConnectToTarget() const;

  const LinkOptions options_;
  const int listen_fd_;
  const uint16_t port_;
  std::atomic<uint64_t> forwarded_[2] = {0, 0};
  std::mutex mutex_;
  std::condition_variable changed_;
  bool cut_ = false;                // guarded by mutex_
  bool hang_ = false;               // guarded by mutex_
  bool stopping_ = false;           // guarded by mutex_
  Clock::time_point wire_free_[2];  // guarded by mutex_; when the last accepted byte is through
  std::list<std::unique_ptr<Connection>> connections_;  // guarded by mutex_
  std::thread acceptor_;
};

}  // namespace pcmoe::tests
