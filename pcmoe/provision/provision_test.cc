// pcmoe/provision/provision_test.cc: folders that start, and every way in which one must not.
#include "pcmoe/provision/provision.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "pcmoe/base/digest.h"
#include "pcmoe/base/file.h"
#include "pcmoe/federation/signature.h"
#include "pcmoe/provision/certificate.h"
#include "pcmoe/provision/identity.h"

namespace pcmoe::provision {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

federation::Manifest Example() {
  federation::Manifest manifest;
  manifest.id = "test";
  manifest.parties = {{"a", "127.0.0.1", 7001}, {"b", "b.example.org", 7002}};
  manifest.max_steps = 1;
  return manifest;
}

class ProvisionTest : public testing::Test {
 protected:
  ProvisionTest() : out_(fs::temp_directory_path() / absl::StrCat("pcmoe_provision_", ::getpid())) {
    fs::remove_all(out_);
    options_.out = out_;
  }
  ~ProvisionTest() override { fs::remove_all(out_); }

  ProvisionReport Make() {
    auto report = Provision(options_, Example());
    EXPECT_TRUE(report.ok()) << report.status();
    return report.ok() ? *report : ProvisionReport{};
  }
  std::string Sentence(absl::Time now = absl::Now()) {
    const auto identity = LoadIdentity(out_ / "a", now);
    EXPECT_FALSE(identity.ok());
    return std::string(identity.status().message());
  }
  int ModeOf(const fs::path& path) {
    struct stat info{};
    EXPECT_EQ(::stat(path.c_str(), &info), 0) << path;
    return static_cast<int>(info.st_mode & 0777);
  }

  const fs::path out_;
  ProvisionOptions options_;
};

TEST_F(ProvisionTest, EveryPartyCanStartFromItsFolder) {
  const ProvisionReport report = Make();
  EXPECT_TRUE(report.new_authority);
  EXPECT_THAT(report.issued, ElementsAre("a", "b"));
  for (size_t i = 0; i < 2; ++i) {
    const auto identity = LoadIdentity(out_ / report.manifest.parties[i].name);
    ASSERT_TRUE(identity.ok()) << identity.status();
    EXPECT_EQ(identity->index, i);
    EXPECT_EQ(identity->manifest, report.manifest);
    EXPECT_GT(identity->expires, absl::Now() + absl::Hours(24 * 364));
  }
  EXPECT_NE(LoadIdentity(out_ / "a")->shuffle_key, LoadIdentity(out_ / "b")->shuffle_key);
}

TEST_F(ProvisionTest, SecretsAreForTheirOwnerAlone) {
  Make();
  for (const char* folder : {"a", "b", "ca"}) EXPECT_EQ(ModeOf(out_ / folder), 0700);
  for (const char* file : {"a/party.key", "a/shuffle.key", "ca/ca.key", "ca/federation.key"}) {
    EXPECT_EQ(ModeOf(out_ / file), 0600);
  }
  EXPECT_FALSE(fs::exists(out_ / "a" / "ca.key"));
  EXPECT_FALSE(fs::exists(out_ / "a" / "federation.key"));
}

TEST_F(ProvisionTest, CertificatesNamePartyHostAndLocalNames) {
  Make();
  const auto a = ReadCertificate(*base::ReadFile(out_ / "a" / kCertificateFile));
  EXPECT_THAT(a->dns_names, ElementsAre("a.test.pcmoe", "localhost"));
  EXPECT_THAT(a->ip_addresses, ElementsAre("127.0.0.1"));
  const auto b = ReadCertificate(*base::ReadFile(out_ / "b" / kCertificateFile));
  EXPECT_THAT(b->dns_names, ElementsAre("b.test.pcmoe", "b.example.org"));
  EXPECT_THAT(b->ip_addresses, IsEmpty());
}

// The oracle: the openssl program accepts what we issued, for both directions of TLS.
TEST_F(ProvisionTest, OpensslAcceptsTheChain) {
  Make();
  for (const char* purpose : {"sslserver", "sslclient"}) {
    const std::string command = absl::StrCat(
        "openssl verify -x509_strict -purpose ", purpose, " -CAfile ", (out_ / "a/ca.crt").string(),
        " -verify_hostname a.test.pcmoe ", (out_ / "a/party.crt").string(), " >/dev/null");
    EXPECT_EQ(std::system(command.c_str()), 0) << command;
  }
}

TEST_F(ProvisionTest, RunAgainKeepsWhatIsGood) {
  Make();
  const std::string key = *base::ReadFile(out_ / "a" / kKeyFile);
  const std::string shuffle = *base::ReadFile(out_ / "a" / kShuffleKeyFile);
  federation::Manifest changed = Example();
  changed.id = "";
  changed.max_steps = 2;
  changed.parties[1].host = "elsewhere.example.org";

  const auto report = Provision(options_, changed);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->manifest.id, "test");
  EXPECT_FALSE(report->new_authority);
  EXPECT_THAT(report->kept, ElementsAre("a"));
  EXPECT_THAT(report->issued, ElementsAre("b"));
  EXPECT_EQ(*base::ReadFile(out_ / "a" / kKeyFile), key);
  EXPECT_EQ(*base::ReadFile(out_ / "a" / kShuffleKeyFile), shuffle);
  EXPECT_EQ(LoadIdentity(out_ / "a")->manifest.max_steps, 2U);

  options_.force = true;
  EXPECT_THAT(Make().issued, ElementsAre("a", "b"));
  EXPECT_NE(*base::ReadFile(out_ / "a" / kKeyFile), key);
  EXPECT_TRUE(LoadIdentity(out_ / "a").ok());
}

TEST_F(ProvisionTest, CertificatesThatEndSoonAreRenewed) {
  options_.party_validity = absl::Hours(24);
  Make();
  options_.party_validity = absl::Hours(2400);
  EXPECT_THAT(Make().issued, ElementsAre("a", "b"));
  EXPECT_THAT(Make().kept, ElementsAre("a", "b"));
}

TEST_F(ProvisionTest, ExpiredAndNotYetValidCertificatesAreRefused) {
  options_.now = absl::FromUnixSeconds(1'700'000'000);
  options_.party_validity = absl::Hours(1);
  Make();
  EXPECT_THAT(Sentence(options_.now + absl::Hours(2)), HasSubstr("expired on 2023-11-14"));
  EXPECT_THAT(Sentence(options_.now - absl::Hours(2)), HasSubstr("check the clock"));
  EXPECT_TRUE(LoadIdentity(out_ / "a", options_.now).ok());
}

TEST_F(ProvisionTest, ASecretThatOthersCanReadIsRefusedWithTheCommand) {
  Make();
  for (const char* file : {kKeyFile, kShuffleKeyFile}) {
    const fs::path path = out_ / "a" / file;
    ASSERT_EQ(::chmod(path.c_str(), 0640), 0);
    EXPECT_THAT(Sentence(), HasSubstr("type: chmod 600 " + path.string()));
    ASSERT_EQ(::chmod(path.c_str(), 0600), 0);
  }
}

TEST_F(ProvisionTest, MissingFilesAreNamed) {
  for (const char* file : {kCaFile, kCertificateFile, kKeyFile, kManifestFile, kSignatureFile,
                           kPublicKeyFile, kShuffleKeyFile}) {
    Make();
    fs::remove(out_ / "a" / file);
    EXPECT_THAT(Sentence(), HasSubstr(absl::StrCat(file, " is missing")));
  }
}

TEST_F(ProvisionTest, PartsOfOtherPartiesOrFederationsAreRefused) {
  Make();
  options_.out = out_ / "other";
  Make();
  const auto swap_in = [&](const fs::path& from, const char* file) {
    fs::copy_file(from / file, out_ / "a" / file, fs::copy_options::overwrite_existing);
    const std::string sentence = Sentence();
    fs::copy_file(out_ / "keep" / file, out_ / "a" / file, fs::copy_options::overwrite_existing);
    return sentence;
  };
  fs::copy(out_ / "a", out_ / "keep");
  EXPECT_THAT(swap_in(out_ / "b", kKeyFile), HasSubstr("not the certificate's"));
  EXPECT_THAT(swap_in(out_ / "other/a", kCaFile), HasSubstr("not signed by this authority"));
  EXPECT_THAT(swap_in(out_ / "other/a", kSignatureFile), HasSubstr("not signed by the federation"));
  EXPECT_THAT(swap_in(out_ / "other/a", kPublicKeyFile), HasSubstr("not signed by the federation"));
  ASSERT_TRUE(LoadIdentity(out_ / "a").ok());
}

TEST_F(ProvisionTest, AManifestWithoutThisPartyIsRefused) {
  Make();
  auto manifest = Example();
  manifest.parties.erase(manifest.parties.begin());
  ASSERT_TRUE(Provision(options_, manifest).ok());
  for (const char* file : {kManifestFile, kSignatureFile}) {
    fs::copy_file(out_ / "b" / file, out_ / "a" / file, fs::copy_options::overwrite_existing);
  }
  EXPECT_THAT(Sentence(), HasSubstr("names no party of the manifest"));
}

TEST_F(ProvisionTest, DamagedFilesAreErrorsNotCrashes) {
  for (const char* file : {kCaFile, kCertificateFile, kKeyFile, kManifestFile, kSignatureFile,
                           kPublicKeyFile, kShuffleKeyFile}) {
    for (const std::string bytes : {"", "garbage", "-----BEGIN CERTIFICATE-----\nAAAA\n"}) {
      Make();
      ASSERT_TRUE(base::WriteFileAtomically(out_ / "a" / file, bytes, 0600).ok());
      EXPECT_FALSE(Sentence().empty());
    }
  }
}

TEST_F(ProvisionTest, NamesThatCannotBeAreRefused) {
  auto manifest = Example();
  manifest.parties[0].name = "ca";
  EXPECT_FALSE(Provision(options_, manifest).ok());
  manifest.parties[0].name = "..";
  EXPECT_FALSE(Provision(options_, manifest).ok());
}

}  // namespace
}  // namespace pcmoe::provision
