// pcmoe/transport/free_ports.cc: see free_ports.h.
#include "pcmoe/transport/free_ports.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pcmoe/base/random.h"

namespace pcmoe::transport {
namespace {

constexpr uint16_t kLowest = 15000;   // below it are the ports of known services
constexpr uint16_t kHighest = 32000;  // Linux gives 32768 and above to outgoing connections

bool CanBind(uint16_t port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  // A connection of an earlier run that is still closing does not stop a listener; a listener does.
  const int on = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_ANY);
  const bool bound = ::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
  ::close(fd);
  return bound;
}

}  // namespace

absl::StatusOr<std::vector<uint16_t>> FreePorts(int count, uint16_t first) {
  std::vector<uint16_t> ports;
  if (count < 1 || count > kHighest - kLowest || (first != 0 && first + count > 65536)) {
    return absl::InvalidArgumentError(
        absl::StrCat(count, " ports from ", first, " up: there are not so many"));
  }
  if (first != 0) {
    for (int i = 0; i < count; ++i) {
      const auto port = static_cast<uint16_t>(first + i);
      if (!CanBind(port)) {
        return absl::UnavailableError(absl::StrCat(
            "port ", port, " of this machine is taken; choose another --first-port, or none"));
      }
      ports.push_back(port);
    }
    return ports;
  }
  // From a random place on, so that two runs that start together rarely meet.
  uint16_t random = 0;
  base::FillSecure({reinterpret_cast<uint8_t*>(&random), sizeof(random)});
  constexpr int kRange = kHighest - kLowest;
  for (int tried = 0; tried < kRange && static_cast<int>(ports.size()) < count; ++tried) {
    const auto port = static_cast<uint16_t>(kLowest + (random + tried) % kRange);
    if (CanBind(port)) ports.push_back(port);
  }
  if (static_cast<int>(ports.size()) < count) {
    return absl::UnavailableError("no free ports on this machine; name some with --first-port");
  }
  return ports;
}

}  // namespace pcmoe::transport
