// pcmoe/provision/certificate.h: X.509 certificates on P-256 keys, as PEM; OpenSSL stays inside.
#pragma once

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "pcmoe/base/status.h"

namespace pcmoe::provision {

/// A private key (PKCS#8) and its certificate, both PEM.
struct KeyAndCertificate {
  std::string key_pem;
  std::string certificate_pem;
};

/// When a certificate holds; whole seconds.
struct Validity {
  absl::Time not_before;
  absl::Time not_after;
};

/// Names that go into a certificate. `hosts` may hold host names and IP addresses.
struct Names {
  std::string common_name;         ///< At most 64 bytes.
  std::vector<std::string> hosts;  ///< Subject alternative names; letters, digits, '.', '-', ':'.
};

/// What a certificate says of itself.
struct CertificateFacts {
  std::vector<std::string> dns_names;
  std::vector<std::string> ip_addresses;
  Validity validity;
};

/// A new key and a self-signed certificate that may sign others.
absl::StatusOr<KeyAndCertificate> MakeAuthority(const std::string& common_name,
                                                const Validity& validity);

/// A new key and a certificate for it, for TLS servers and clients, signed by `authority`.
absl::StatusOr<KeyAndCertificate> IssueCertificate(const Names& names, const Validity& validity,
                                                   const KeyAndCertificate& authority);

/// INVALID_ARGUMENT when `pem` is no certificate.
absl::StatusOr<CertificateFacts> ReadCertificate(const std::string& pem);

/// FAILED_PRECONDITION unless the key belongs to the certificate.
absl::Status CheckKeyBelongs(const KeyAndCertificate& pair);

/// UNAUTHENTICATED unless `authority_pem` signed the certificate. Does not look at dates.
absl::Status CheckSignedBy(const std::string& certificate_pem, const std::string& authority_pem);

}  // namespace pcmoe::provision
