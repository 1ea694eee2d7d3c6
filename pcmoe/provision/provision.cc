// pcmoe/provision/provision.cc: see provision.h.
#include "pcmoe/provision/provision.h"

#include <algorithm>
#include <set>

#include "absl/strings/ascii.h"
#include "pcmoe/base/digest.h"
#include "pcmoe/base/file.h"
#include "pcmoe/base/random.h"
#include "pcmoe/federation/signature.h"
#include "pcmoe/provision/certificate.h"
#include "pcmoe/provision/identity.h"

namespace pcmoe::provision {
namespace {

namespace fs = std::filesystem;
using federation::Manifest;
using federation::SigningKey;

constexpr char kAuthorityFolder[] = "ca";
constexpr char kAuthorityKeyFile[] = "ca.key";
constexpr char kSigningKeyFile[] = "federation.key";
constexpr uint64_t kMaxFileBytes = uint64_t{1} << 20;
// A clock that is an hour late must not refuse a certificate made just now.
constexpr absl::Duration kClockSkew = absl::Hours(1);
constexpr absl::Duration kRenewBefore = absl::Hours(24 * 30);
constexpr size_t kMaxCommonName = 64;  // X.520, ub-common-name

std::string ReadOr(const fs::path& path, const std::string& otherwise) {
  auto text = base::ReadFile(path, kMaxFileBytes);
  return text.ok() ? *std::move(text) : otherwise;
}

std::string RandomHex() {
  base::Sha256 bytes;
  base::FillSecure(bytes);
  return base::ToHex(bytes);
}

// A private folder: an existing one is closed to others as well.
absl::Status CreatePrivateFolder(const fs::path& path) {
  PCMOE_RETURN_IF_ERROR(base::CreateFolder(path, 0700));
  std::error_code error;
  fs::permissions(path, fs::perms::owner_all, error);
  if (error) {
    return absl::FailedPreconditionError(
        absl::StrCat(path.string(), ": cannot set the mode 0700: ", error.message()));
  }
  return absl::OkStatus();
}

struct Authority {
  KeyAndCertificate pair;
  SigningKey signing_key;
  bool is_new = false;
};

absl::StatusOr<Authority> LoadOrMakeAuthority(const ProvisionOptions& options,
                                              const Manifest& manifest) {
  const fs::path folder = options.out / kAuthorityFolder;
  Authority authority;
  authority.pair = {ReadOr(folder / kAuthorityKeyFile, ""), ReadOr(folder / kCaFile, "")};
  auto signing_key = federation::SigningKeyFromHex(ReadOr(folder / kSigningKeyFile, ""));
  const auto facts = ReadCertificate(authority.pair.certificate_pem);
  const bool good = facts.ok() && facts->validity.not_after > options.now + kRenewBefore &&
                    CheckKeyBelongs(authority.pair).ok() && signing_key.ok();
  if (good && !options.force) {
    authority.signing_key = *signing_key;
    return authority;
  }
  authority.is_new = true;
  PCMOE_ASSIGN_OR_RETURN(
      authority.pair,
      MakeAuthority(absl::StrCat("pcmoe ", manifest.id).substr(0, kMaxCommonName),
                    {options.now - kClockSkew, options.now + options.authority_validity}));
  authority.signing_key = federation::GenerateSigningKey();
  PCMOE_RETURN_IF_ERROR(
      base::WriteFileAtomically(folder / kAuthorityKeyFile, authority.pair.key_pem, 0600));
  PCMOE_RETURN_IF_ERROR(
      base::WriteFileAtomically(folder / kCaFile, authority.pair.certificate_pem));
  PCMOE_RETURN_IF_ERROR(base::WriteFileAtomically(
      folder / kSigningKeyFile, federation::SecretToHex(authority.signing_key) + "\n", 0600));
  return authority;
}

std::vector<std::string> HostsOf(const Manifest& manifest, size_t party) {
  const std::string& host = manifest.parties[party].host;
  std::vector<std::string> hosts = {manifest.IdentityOf(party), host};
  if (host == "localhost" || host.starts_with("127.") || host == "::1") {
    for (const char* local : {"localhost", "127.0.0.1"}) {
      if (host != local) hosts.emplace_back(local);
    }
  }
  return hosts;
}

bool IsGood(const fs::path& folder, const std::vector<std::string>& hosts,
            const ProvisionOptions& options, const Authority& authority) {
  const KeyAndCertificate pair = {ReadOr(folder / kKeyFile, ""),
                                  ReadOr(folder / kCertificateFile, "")};
  const auto facts = ReadCertificate(pair.certificate_pem);
  if (!facts.ok() || !CheckKeyBelongs(pair).ok() ||
      !CheckSignedBy(pair.certificate_pem, authority.pair.certificate_pem).ok()) {
    return false;
  }
  std::set<std::string> names(facts->dns_names.begin(), facts->dns_names.end());
  names.insert(facts->ip_addresses.begin(), facts->ip_addresses.end());
  return names == std::set<std::string>(hosts.begin(), hosts.end()) &&
         facts->validity.not_after > options.now + kRenewBefore;
}

absl::Status WriteParty(const ProvisionOptions& options, const Authority& authority, size_t party,
                        ProvisionReport& report) {
  const Manifest& manifest = report.manifest;
  const std::string& name = manifest.parties[party].name;
  const fs::path folder = options.out / name;
  PCMOE_RETURN_IF_ERROR(CreatePrivateFolder(folder));
  const std::vector<std::string> hosts = HostsOf(manifest, party);
  if (!options.force && IsGood(folder, hosts, options, authority)) {
    report.kept.push_back(name);
  } else {
    PCMOE_ASSIGN_OR_RETURN(
        const KeyAndCertificate pair,
        IssueCertificate({name, hosts},
                         {options.now - kClockSkew, options.now + options.party_validity},
                         authority.pair));
    PCMOE_RETURN_IF_ERROR(base::WriteFileAtomically(folder / kKeyFile, pair.key_pem, 0600));
    PCMOE_RETURN_IF_ERROR(
        base::WriteFileAtomically(folder / kCertificateFile, pair.certificate_pem));
    report.issued.push_back(name);
  }
  const fs::path shuffle_key = folder / kShuffleKeyFile;
  if (options.force || !fs::exists(shuffle_key)) {
    PCMOE_RETURN_IF_ERROR(base::WriteFileAtomically(shuffle_key, RandomHex() + "\n", 0600));
  }
  const std::pair<const char*, std::string> files[] = {
      {kCaFile, authority.pair.certificate_pem},
      {kManifestFile, manifest.CanonicalJson()},
      {kSignatureFile, federation::SignManifest(manifest, authority.signing_key) + "\n"},
      {kPublicKeyFile, federation::PublicToHex(authority.signing_key) + "\n"}};
  for (const auto& [file, bytes] : files) {
    PCMOE_RETURN_IF_ERROR(base::WriteFileAtomically(folder / file, bytes));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ProvisionReport> Provision(const ProvisionOptions& options, Manifest manifest) {
  const fs::path authority_folder = options.out / kAuthorityFolder;
  if (manifest.id.empty()) {
    const auto before = federation::ParseManifest(ReadOr(authority_folder / kManifestFile, ""));
    manifest.id = before.ok() && !options.force ? before->id : "fed-" + RandomHex().substr(0, 8);
  }
  PCMOE_RETURN_IF_ERROR(manifest.Validate());
  if (manifest.IndexOf(kAuthorityFolder).ok()) {
    return absl::InvalidArgumentError(
        "a party cannot be called 'ca': that folder holds the authority; choose another name");
  }
  PCMOE_RETURN_IF_ERROR(CreatePrivateFolder(authority_folder));
  ProvisionReport report;
  report.manifest = std::move(manifest);
  PCMOE_ASSIGN_OR_RETURN(const Authority authority, LoadOrMakeAuthority(options, report.manifest));
  report.new_authority = authority.is_new;
  for (size_t party = 0; party < report.manifest.parties.size(); ++party) {
    PCMOE_RETURN_IF_ERROR(WriteParty(options, authority, party, report));
  }
  PCMOE_RETURN_IF_ERROR(
      base::WriteFileAtomically(authority_folder / kManifestFile, report.manifest.CanonicalJson()));
  return report;
}

}  // namespace pcmoe::provision
