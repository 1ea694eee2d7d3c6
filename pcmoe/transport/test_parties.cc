// pcmoe/transport/test_parties.cc: see test_parties.h.
#include "pcmoe/transport/test_parties.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <set>

#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "pcmoe/base/file.h"

namespace pcmoe::transport {

uint16_t FreePort() {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  const bool ok = ::bind(fd, generic, size) == 0 && ::getsockname(fd, generic, &size) == 0;
  ::close(fd);
  return ok ? ntohs(address.sin_port) : 0;
}

TestParties::TestParties(int parties) {
  const absl::Time now = absl::Now();
  authority_ =
      *provision::MakeAuthority("test authority", {now - absl::Hours(1), now + absl::Hours(1)});
  for (int i = 0; i < parties; ++i) {
    const std::string name(1, static_cast<char>('a' + i));
    parties_.push_back({name, "127.0.0.1", FreePort(), name + ".test.pcmoe"});
    certificates_.push_back(
        Issue(authority_, parties_.back().identity, now - absl::Hours(1), absl::Hours(2)));
  }
}

TestParties::TestParties(const std::string& folder) {
  const auto read = [&](const std::string& name) { return *base::ReadFile(folder + "/" + name); };
  authority_.certificate_pem = read("ca");
  for (const absl::string_view line : absl::StrSplit(read("parties"), '\n', absl::SkipEmpty())) {
    const std::vector<std::string> words = absl::StrSplit(line, ' ');
    parties_.push_back({words[0], "127.0.0.1", static_cast<uint16_t>(std::stoi(words[1])),
                        words[0] + ".test.pcmoe"});
    certificates_.push_back({read(words[0] + ".key"), read(words[0] + ".crt")});
  }
}

void TestParties::Save(const std::string& folder) const {
  const auto write = [&](const std::string& name, const std::string& bytes) {
    base::WriteFileAtomically(folder + "/" + name, bytes).IgnoreError();
  };
  std::string lines;
  for (size_t i = 0; i < parties_.size(); ++i) {
    const std::string& name = parties_[i].name;
    absl::StrAppend(&lines, name, " ", parties_[i].port, "\n");
    write(name + ".key", certificates_[i].key_pem);
    write(name + ".crt", certificates_[i].certificate_pem);
  }
  write("ca", authority_.certificate_pem);
  write("parties", lines);
}

provision::KeyAndCertificate TestParties::Issue(const provision::KeyAndCertificate& authority,
                                                const std::string& identity, absl::Time from,
                                                absl::Duration validity) {
  return *provision::IssueCertificate({"test", {identity}}, {from, from + validity}, authority);
}

GrpcChannelOptions TestParties::Options(wire::PartyIndex self) const {
  GrpcChannelOptions options;
  options.self = self;
  options.parties = parties_;
  options.listen_host = "127.0.0.1";
  options.ca_pem = authority_.certificate_pem;
  options.certificate_pem = certificates_[static_cast<size_t>(self)].certificate_pem;
  options.key_pem = certificates_[static_cast<size_t>(self)].key_pem;
  options.run = kTestRun;
  options.keepalive = absl::Seconds(1);
  options.keepalive_timeout = absl::Seconds(1);
  options.redial = absl::Milliseconds(50);
  return options;
}

namespace {
void FillPattern(std::span<uint8_t> bytes, uint32_t seed) {
  uint32_t state = seed * 2654435761U + 1;
  for (uint8_t& byte : bytes) {
    state = state * 1664525U + 1013904223U;
    byte = static_cast<uint8_t>(state >> 24);
  }
}
}  // namespace

wire::Sealed TestMessage(border::EgressGate& gate, wire::PartyIndex to, uint64_t step, size_t bytes,
                         uint32_t seed) {
  wire::Buffer payload = wire::Buffer::Allocate(bytes);
  FillPattern(payload.writable(), seed);
  return *gate.Release(to, {wire::MessageKind::kVote, step}, std::move(payload));
}

bool HasPattern(const wire::Buffer& payload, uint32_t seed) {
  std::vector<uint8_t> expected(payload.size());
  FillPattern(expected, seed);
  return std::equal(expected.begin(), expected.end(), payload.bytes().begin());
}

std::optional<Event> NextOf(Channel& channel, Event::Kind kind, absl::Duration patience) {
  const absl::Time deadline = absl::Now() + patience;
  while (auto event = channel.Next(deadline)) {
    if (event->kind == kind) return event;
  }
  return std::nullopt;
}

bool AllUp(Channel& channel) {
  std::set<wire::PartyIndex> up;
  while (static_cast<int>(up.size()) + 1 < channel.parties()) {
    const auto event = NextOf(channel, Event::Kind::kPeerUp);
    if (!event.has_value()) return false;
    up.insert(event->peer);
  }
  return true;
}

}  // namespace pcmoe::transport
