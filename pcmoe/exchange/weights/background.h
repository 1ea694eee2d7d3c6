// pcmoe/exchange/weights/background.h: one thread that does jobs in their order, beside the
// compute.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace pcmoe::exchange {

/// Jobs run one after another in a thread of their own; the destructor waits for those begun and
/// lets the others go. One thread posts.
class Background {
 public:
  Background();
  ~Background();
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;

  /// Jobs must not throw.
  void Post(std::function<void()> job);
  /// Until every job posted has run. Jobs do not wait for peers, so this ends.
  void WaitIdle();

 private:
  void Run();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> jobs_;  // guarded by mutex_, as the next two
  bool busy_ = false;
  bool ending_ = false;
  std::thread thread_;
};

}  // namespace pcmoe::exchange
