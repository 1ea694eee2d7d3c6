// pcmoe/provision/identity.cc: see identity.h.
#include "pcmoe/provision/identity.h"

#include <sys/stat.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "pcmoe/base/digest.h"
#include "pcmoe/base/file.h"
#include "pcmoe/federation/signature.h"
#include "pcmoe/provision/certificate.h"

namespace pcmoe::provision {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxPemBytes = uint64_t{1} << 20;
constexpr char kAgain[] = "; copy the folder again from where 'pcmoe provision' wrote it";

absl::StatusOr<std::string> ReadPart(const fs::path& folder, const char* name,
                                     uint64_t max_bytes = kMaxPemBytes) {
  auto bytes = base::ReadFile(folder / name, max_bytes);
  if (absl::IsNotFound(bytes.status())) {
    return absl::NotFoundError(absl::StrCat(folder.string(), ": ", name, " is missing", kAgain));
  }
  return bytes;
}

absl::StatusOr<std::string> ReadSecret(const fs::path& folder, const char* name) {
  PCMOE_ASSIGN_OR_RETURN(std::string bytes, ReadPart(folder, name));
  struct stat info{};
  const fs::path path = folder / name;
  if (::stat(path.c_str(), &info) != 0 || (info.st_mode & 077) != 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        path.string(), ": others can read this secret; type: chmod 600 ", path.string()));
  }
  return bytes;
}

absl::Status At(const fs::path& path, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(path.string(), ": ", status.message(), kAgain));
}

std::string Date(absl::Time time) {
  return absl::FormatTime("%Y-%m-%d %H:%M:%S UTC", time, absl::UTCTimeZone());
}

absl::Status CheckDates(const fs::path& path, const Validity& validity, absl::Time now) {
  if (now > validity.not_after) {
    return absl::UnauthenticatedError(absl::StrCat(path.string(), ": the certificate expired on ",
                                                   Date(validity.not_after),
                                                   "; run 'pcmoe provision' again for a new one"));
  }
  if (now < validity.not_before) {
    return absl::UnauthenticatedError(
        absl::StrCat(path.string(), ": the certificate is valid from ", Date(validity.not_before),
                     " on; check the clock of this machine"));
  }
  return absl::OkStatus();
}

absl::Status LoadCertificate(const fs::path& folder, absl::Time now, Identity& identity,
                             CertificateFacts& facts) {
  PCMOE_ASSIGN_OR_RETURN(identity.ca_pem, ReadPart(folder, kCaFile));
  PCMOE_ASSIGN_OR_RETURN(identity.certificate_pem, ReadPart(folder, kCertificateFile));
  PCMOE_ASSIGN_OR_RETURN(identity.key_pem, ReadSecret(folder, kKeyFile));
  const fs::path path = folder / kCertificateFile;
  auto read = ReadCertificate(identity.certificate_pem);
  if (!read.ok()) return At(path, read.status());
  facts = *std::move(read);
  auto authority = ReadCertificate(identity.ca_pem);
  if (!authority.ok()) return At(folder / kCaFile, authority.status());
  absl::Status status = CheckKeyBelongs({identity.key_pem, identity.certificate_pem});
  if (!status.ok()) return At(folder / kKeyFile, status);
  status = CheckSignedBy(identity.certificate_pem, identity.ca_pem);
  if (!status.ok()) return At(path, status);
  PCMOE_RETURN_IF_ERROR(CheckDates(folder / kCaFile, authority->validity, now));
  identity.expires = std::min(facts.validity.not_after, authority->validity.not_after);
  return CheckDates(path, facts.validity, now);
}

absl::Status LoadManifest(const fs::path& folder, Identity& identity) {
  PCMOE_ASSIGN_OR_RETURN(const std::string text,
                         ReadPart(folder, kManifestFile, federation::kMaxManifestBytes));
  PCMOE_ASSIGN_OR_RETURN(const std::string signature, ReadPart(folder, kSignatureFile));
  PCMOE_ASSIGN_OR_RETURN(const std::string public_key, ReadPart(folder, kPublicKeyFile));
  const fs::path path = folder / kManifestFile;
  auto manifest = federation::ParseManifest(text);
  if (!manifest.ok()) return At(path, manifest.status());
  identity.manifest = *std::move(manifest);
  return WithContext(federation::VerifySignature(identity.manifest, signature, public_key),
                     path.string());
}

}  // namespace

absl::StatusOr<Identity> LoadIdentity(const fs::path& folder, absl::Time now) {
  Identity identity;
  CertificateFacts facts;
  PCMOE_RETURN_IF_ERROR(LoadCertificate(folder, now, identity, facts));
  PCMOE_RETURN_IF_ERROR(LoadManifest(folder, identity));
  PCMOE_ASSIGN_OR_RETURN(const std::string shuffle_hex, ReadSecret(folder, kShuffleKeyFile));
  const auto shuffle_key =
      base::Sha256FromHex(std::string(absl::StripAsciiWhitespace(shuffle_hex)));
  if (!shuffle_key.ok()) {
    return At(folder / kShuffleKeyFile,
              absl::InvalidArgumentError("the key is not 64 hexadecimal digits"));
  }
  identity.shuffle_key = *shuffle_key;
  for (size_t i = 0; i < identity.manifest.parties.size(); ++i) {
    if (std::ranges::count(facts.dns_names, identity.manifest.IdentityOf(i)) == 0) continue;
    identity.index = i;
    identity.name = identity.manifest.parties[i].name;
    return identity;
  }
  return absl::UnauthenticatedError(absl::StrCat((folder / kCertificateFile).string(),
                                                 ": the certificate names no party of the manifest",
                                                 kAgain));
}

}  // namespace pcmoe::provision
