// pcmoe/transport/grpc_tls_test.cc: who may connect, and what is said about those who may not.
#include <arpa/inet.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/security/credentials.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "pcmoe/transport/grpc_streams.h"
#include "pcmoe/transport/test_parties.h"

namespace pcmoe::transport {
namespace {

using testing::AnyOf;
using testing::HasSubstr;

class GrpcTlsTest : public testing::Test {
 protected:
  // Opens both parties and waits until `from` says something with `expected` about the other.
  void ExpectRefused(const GrpcChannelOptions& a, const GrpcChannelOptions& b,
                     const testing::Matcher<std::string>& expected) {
    auto channel_a = CreateGrpcChannel(a);
    auto channel_b = CreateGrpcChannel(b);
    ASSERT_TRUE(channel_a.ok() && channel_b.ok());
    const absl::Time deadline = absl::Now() + absl::Seconds(5);
    std::string said;
    while (absl::Now() < deadline && !testing::Value(said, expected)) {
      absl::SleepFor(absl::Milliseconds(20));
      said = std::string((*channel_a)->PeerStatus(1).message());
    }
    EXPECT_THAT(said, expected);
    EXPECT_FALSE((*channel_a)->Next(absl::Now()).has_value()) << "nobody may come up";
    EXPECT_FALSE((*channel_b)->Next(absl::Now()).has_value()) << "nobody may come up";
  }
  static void Use(const provision::KeyAndCertificate& pair, GrpcChannelOptions& options) {
    options.certificate_pem = pair.certificate_pem;
    options.key_pem = pair.key_pem;
  }

  // Both parties connect and a message crosses: whatever was tried before did no harm.
  void ExpectWorks(Channel& a, Channel& b) {
    border::EgressGate gate({}, nullptr);
    ASSERT_TRUE(AllUp(a) && AllUp(b));
    ASSERT_TRUE(a.Send(TestMessage(gate, 1, 77, 1000), absl::Now() + absl::Seconds(5)).ok());
    ASSERT_EQ(NextOf(b, Event::Kind::kMessage)->message.header.step, 77U);
  }

  const TestParties parties_{2};
};

TEST_F(GrpcTlsTest, ADialledPartyOfAnotherAuthorityIsRefused) {
  const TestParties others(2);
  auto b = parties_.Options(1);
  Use({others.Options(1).key_pem, others.Options(1).certificate_pem}, b);
  ExpectRefused(parties_.Options(0), b, HasSubstr("not good for this party's ca.crt"));
}

TEST_F(GrpcTlsTest, ADiallingPartyOfAnotherAuthorityIsRefused) {
  const TestParties others(2);
  auto a = parties_.Options(0);
  Use({others.Options(0).key_pem, others.Options(0).certificate_pem}, a);
  ExpectRefused(a, parties_.Options(1), HasSubstr("refused this party's certificate"));
}

TEST_F(GrpcTlsTest, ADialledPartyWithAnotherNameIsRefused) {
  auto b = parties_.Options(1);
  Use(TestParties::Issue(parties_.authority(), "x.test.pcmoe", absl::Now() - absl::Hours(1),
                         absl::Hours(2)),
      b);
  ExpectRefused(parties_.Options(0), b, HasSubstr("carries another name"));
}

TEST_F(GrpcTlsTest, ADiallingPartyWithAnUnknownNameIsRefused) {
  auto a = parties_.Options(0);
  Use(TestParties::Issue(parties_.authority(), "x.test.pcmoe", absl::Now() - absl::Hours(1),
                         absl::Hours(2)),
      a);
  ExpectRefused(a, parties_.Options(1), HasSubstr("does not accept this party's certificate"));
}

// A party may not dial one that should dial it: it could take the other's place.
TEST_F(GrpcTlsTest, APartyCannotBeItsOwnPeer) {
  auto a = parties_.Options(0);
  Use({parties_.Options(1).key_pem, parties_.Options(1).certificate_pem}, a);
  ExpectRefused(a, parties_.Options(1), HasSubstr("does not accept this party's certificate"));
}

TEST_F(GrpcTlsTest, ExpiredCertificatesAreRefusedOnBothSides) {
  const absl::Time past = absl::Now() - absl::Hours(10);
  auto a = parties_.Options(0);
  auto b = parties_.Options(1);
  Use(TestParties::Issue(parties_.authority(), "b.test.pcmoe", past, absl::Hours(9)), b);
  ExpectRefused(a, b, HasSubstr("expired"));
  Use(TestParties::Issue(parties_.authority(), "a.test.pcmoe", past, absl::Hours(9)), a);
  ExpectRefused(a, parties_.Options(1), HasSubstr("refused this party's certificate"));
}

TEST_F(GrpcTlsTest, PartiesWithOtherManifestsAreTold) {
  auto b = parties_.Options(1);
  b.run[3] = 99;
  ExpectRefused(parties_.Options(0), b, HasSubstr("runs another manifest"));
}

TEST_F(GrpcTlsTest, ATakenPortIsNamed) {
  auto first = CreateGrpcChannel(parties_.Options(1));
  ASSERT_TRUE(first.ok());
  const auto second = CreateGrpcChannel(parties_.Options(1));
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("cannot listen on 127.0.0.1:"));
}

TEST_F(GrpcTlsTest, NothingRunsWithoutTlsOrAddresses) {
  auto options = parties_.Options(0);
  options.key_pem = "";
  EXPECT_FALSE(CreateGrpcChannel(options).ok());
  options = parties_.Options(0);
  options.self = 5;
  EXPECT_FALSE(CreateGrpcChannel(options).ok());
  options = parties_.Options(0);
  options.parties[1].port = 0;
  EXPECT_FALSE(CreateGrpcChannel(options).ok());
  options = parties_.Options(0);
  options.certificate_pem = "garbage";
  EXPECT_FALSE(CreateGrpcChannel(options).ok());
}

// A socket of this machine, connected or listening, that closes itself.
class PlainSocket {
 public:
  explicit PlainSocket(uint16_t port, bool listen) : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    auto* const generic = reinterpret_cast<sockaddr*>(&address);
    const int reuse = 1;
    ::setsockopt(fd_, SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof(reuse));
    ok_ = listen ? ::bind(fd_, generic, sizeof(address)) == 0 && ::listen(fd_, 8) == 0
                 : ::connect(fd_, generic, sizeof(address)) == 0;
  }
  ~PlainSocket() { ::close(fd_); }
  int fd() const { return fd_; }
  bool ok() const { return ok_; }

 private:
  int fd_;
  bool ok_ = false;
};

TEST_F(GrpcTlsTest, PlainTextToThePortGetsNowhereAndDoesNoHarm) {
  auto b = CreateGrpcChannel(parties_.Options(1));
  ASSERT_TRUE(b.ok());
  for (const std::string text : {"GET / HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"}) {
    const PlainSocket probe(parties_.Options(1).parties[1].port, /*listen=*/false);
    ASSERT_TRUE(probe.ok());
    ASSERT_GT(::send(probe.fd(), text.data(), text.size(), 0), 0);
    char answer[1000];
    ssize_t count = 0;
    ssize_t total = 0;
    while ((count = ::recv(probe.fd(), answer, sizeof(answer), 0)) > 0) total += count;
    EXPECT_LT(total, 20) << "at most a TLS alert";
  }
  EXPECT_FALSE((*b)->Next(absl::Now()).has_value());
  auto a = CreateGrpcChannel(parties_.Options(0));
  ExpectWorks(**a, **b);
}

TEST_F(GrpcTlsTest, APeerThatSpeaksPlainTextIsNamed) {
  const auto options = parties_.Options(0);
  const PlainSocket server(options.parties[1].port, /*listen=*/true);
  ASSERT_TRUE(server.ok());
  std::thread answers([&] {
    while (true) {
      const int client = ::accept(server.fd(), nullptr, nullptr);
      if (client < 0) return;
      ::send(client, "HTTP/1.1 400 Bad Request\r\n\r\n", 28, MSG_NOSIGNAL);
      ::close(client);
    }
  });
  auto a = CreateGrpcChannel(options);
  ASSERT_TRUE(a.ok());
  const absl::Time deadline = absl::Now() + absl::Seconds(5);
  while ((*a)->PeerStatus(1).message() == "not reached yet" && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(20));
  }
  EXPECT_THAT(std::string((*a)->PeerStatus(1).message()), HasSubstr("does not speak TLS"));
  a->reset();
  ::shutdown(server.fd(), SHUT_RDWR);
  answers.join();
}

TEST_F(GrpcTlsTest, APeerThatIsNotThereIsWaitedFor) {
  auto a = CreateGrpcChannel(parties_.Options(0));
  const absl::Time deadline = absl::Now() + absl::Seconds(5);
  while ((*a)->PeerStatus(1).message() == "not reached yet" && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(20));
  }
  EXPECT_THAT(std::string((*a)->PeerStatus(1).message()), HasSubstr("connection refused"));
  EXPECT_TRUE(absl::IsUnavailable((*a)->PeerStatus(1)));
  border::EgressGate gate({}, nullptr);
  const auto sent = (*a)->Send(TestMessage(gate, 1, 0, 1), absl::Now());
  EXPECT_TRUE(absl::IsUnavailable(sent)) << sent;
  auto b = CreateGrpcChannel(parties_.Options(1));
  ExpectWorks(**a, **b);
}

// The oracle: what the openssl program can agree on with our port, with a good certificate.
TEST_F(GrpcTlsTest, OnlyTlsOnePointTwoAndNewerAreSpoken) {
  auto b = CreateGrpcChannel(parties_.Options(1));
  const auto folder =
      std::filesystem::temp_directory_path() / absl::StrCat("pcmoe_tls_", ::getpid());
  std::filesystem::create_directories(folder);
  parties_.Save(folder);
  const auto agrees = [&](const std::string& version) {
    const std::string command = absl::StrCat(
        "cd ", folder.string(),
        " && openssl s_client -connect 127.0.0.1:", parties_.Options(1).parties[1].port, " -",
        version, " -cipher DEFAULT@SECLEVEL=0 -alpn h2 -cert a.crt -key a.key -CAfile ca",
        " -verify_return_error </dev/null >log 2>&1");
    return std::system(command.c_str()) == 0;
  };
  EXPECT_TRUE(agrees("tls1_3"));
  EXPECT_TRUE(agrees("tls1_2"));
  EXPECT_FALSE(agrees("tls1_1"));
  EXPECT_FALSE(agrees("tls1"));
  std::filesystem::remove_all(folder);
}

// A stream by hand, as somebody would open it who writes a client of their own.
class RawStream : public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  RawStream(const GrpcChannelOptions& options, bool with_certificate, const std::string& method) {
    grpc::SslCredentialsOptions tls{options.ca_pem, "", ""};
    if (with_certificate) {
      tls.pem_cert_chain = options.certificate_pem;
      tls.pem_private_key = options.key_pem;
    }
    grpc::ChannelArguments arguments;
    arguments.SetSslTargetNameOverride(options.parties[1].identity);
    channel_ = grpc::CreateCustomChannel(absl::StrCat("dns:///127.0.0.1:", options.parties[1].port),
                                         grpc::SslCredentials(tls), arguments);
    grpc::GenericStub(channel_).PrepareBidiStreamingCall(&context_, method, {}, this);
    StartCall();
  }
  void OnReadInitialMetadataDone(bool) override { Notify(accepted_); }
  void OnDone(const grpc::Status& status) override {
    status_ = status;
    Notify(done_);
  }
  grpc::Status Wait() {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds(10), [&] { return done_; });
    return status_;
  }
  void Send(const std::string& bytes) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds(10), [&] { return accepted_; });
    const grpc::Slice slice(bytes);
    frame_ = grpc::ByteBuffer(&slice, 1);
    StartWrite(&frame_);
  }

 private:
  void Notify(bool& flag) {
    const std::lock_guard lock(mutex_);
    flag = true;
    changed_.notify_all();
  }
  std::shared_ptr<grpc::Channel> channel_;
  grpc::ClientContext context_;
  grpc::ByteBuffer frame_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool accepted_ = false;
  bool done_ = false;
  grpc::Status status_;
};

TEST_F(GrpcTlsTest, AClientWithoutACertificateGetsNowhere) {
  auto b = CreateGrpcChannel(parties_.Options(1));
  RawStream stream(parties_.Options(0), /*with_certificate=*/false, MethodOf(kTestRun));
  EXPECT_EQ(stream.Wait().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_FALSE((*b)->Next(absl::Now()).has_value());
}

TEST_F(GrpcTlsTest, OtherMethodsAreNotThere) {
  auto b = CreateGrpcChannel(parties_.Options(1));
  RawStream stream(parties_.Options(0), /*with_certificate=*/true, "/grpc.health.v1.Health/Watch");
  EXPECT_EQ(stream.Wait().error_code(), grpc::StatusCode::UNIMPLEMENTED);
}

TEST_F(GrpcTlsTest, APeerThatSendsNonsenseIsDropped) {
  const std::string frames[] = {"", "short", std::string(64, 'x'), std::string(5000, '\0')};
  auto b = CreateGrpcChannel(parties_.Options(1));
  for (const std::string& frame : frames) {
    RawStream stream(parties_.Options(0), /*with_certificate=*/true, MethodOf(kTestRun));
    stream.Send(frame);
    const auto down = NextOf(**b, Event::Kind::kPeerDown);
    ASSERT_TRUE(down.has_value());
    EXPECT_TRUE(absl::IsDataLoss(down->why)) << down->why;
    EXPECT_THAT(std::string(down->why.message()), testing::StartsWith("a: the peer sent"));
    stream.Wait();
  }
}

// Larger than any frame: gRPC itself refuses it before it is in memory.
TEST_F(GrpcTlsTest, APeerThatSendsAnOversizedFrameIsDropped) {
  auto b = CreateGrpcChannel(parties_.Options(1));
  RawStream stream(parties_.Options(0), /*with_certificate=*/true, MethodOf(kTestRun));
  stream.Send(std::string(wire::kMaxFrameBytes + 1, 'x'));
  ASSERT_TRUE(NextOf(**b, Event::Kind::kPeerDown).has_value());
  stream.Wait();
}

}  // namespace
}  // namespace pcmoe::transport
