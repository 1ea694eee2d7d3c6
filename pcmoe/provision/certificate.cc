// pcmoe/provision/certificate.cc: see certificate.h.
#include "pcmoe/provision/certificate.h"

#include <arpa/inet.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <array>
#include <memory>

namespace pcmoe::provision {
namespace {

template <auto kFree>
struct Free {
  template <typename T>
  void operator()(T* object) const {
    kFree(object);
  }
};
using Bio = std::unique_ptr<BIO, Free<BIO_free>>;
using Key = std::unique_ptr<EVP_PKEY, Free<EVP_PKEY_free>>;
using Certificate = std::unique_ptr<X509, Free<X509_free>>;
using Extension = std::unique_ptr<X509_EXTENSION, Free<X509_EXTENSION_free>>;
using GeneralNames = std::unique_ptr<GENERAL_NAMES, Free<GENERAL_NAMES_free>>;
using Time = std::unique_ptr<ASN1_TIME, Free<ASN1_TIME_free>>;

absl::Status Failed(absl::string_view what) {
  std::array<char, 200> reason{};
  ERR_error_string_n(ERR_get_error(), reason.data(), reason.size());
  ERR_clear_error();
  return absl::InternalError(absl::StrCat("OpenSSL cannot ", what, ": ", reason.data()));
}

Bio ReadBio(const std::string& pem) {
  return Bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
}

std::string TextOf(const Bio& bio) {
  char* data = nullptr;
  const auto size = BIO_get_mem_data(bio.get(), &data);
  return size <= 0 ? "" : std::string(data, static_cast<size_t>(size));
}

// A file must never make OpenSSL ask for a passphrase on the terminal.
int NoPassphrase(char*, int, int, void*) { return -1; }

absl::StatusOr<Certificate> ParseCertificate(const std::string& pem) {
  Certificate certificate(PEM_read_bio_X509(ReadBio(pem).get(), nullptr, NoPassphrase, nullptr));
  ERR_clear_error();
  if (certificate == nullptr) return absl::InvalidArgumentError("is not a PEM certificate");
  return certificate;
}

absl::StatusOr<Key> ParseKey(const std::string& pem) {
  Key key(PEM_read_bio_PrivateKey(ReadBio(pem).get(), nullptr, NoPassphrase, nullptr));
  ERR_clear_error();
  if (key == nullptr) return absl::InvalidArgumentError("is not a PEM private key");
  return key;
}

absl::Status AddExtension(X509* certificate, X509* issuer, int id, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  const Extension extension(X509V3_EXT_conf_nid(nullptr, &context, id, value.c_str()));
  if (extension == nullptr || X509_add_ext(certificate, extension.get(), -1) != 1) {
    return Failed("add a certificate extension");
  }
  return absl::OkStatus();
}

bool SetTime(ASN1_TIME* target, absl::Time time) {
  return ASN1_TIME_set(target, absl::ToTimeT(time)) != nullptr;
}

// A certificate with everything but extensions and signature.
absl::StatusOr<Certificate> Blank(const std::string& common_name, const Validity& validity,
                                  EVP_PKEY* key) {
  Certificate certificate(X509_new());
  if (certificate == nullptr || X509_set_version(certificate.get(), 2) != 1) {
    return Failed("make a certificate");
  }
  // 127 random bits: no two certificates of an authority share a number (RFC 5280, 4.1.2.2).
  BIGNUM* number = BN_new();
  const bool numbered =
      number != nullptr && BN_rand(number, 127, BN_RAND_TOP_ANY, BN_RAND_BOTTOM_ANY) == 1 &&
      BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate.get())) != nullptr;
  BN_free(number);
  if (!numbered || !SetTime(X509_getm_notBefore(certificate.get()), validity.not_before) ||
      !SetTime(X509_getm_notAfter(certificate.get()), validity.not_after) ||
      X509_set_pubkey(certificate.get(), key) != 1 ||
      X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate.get()), "CN", MBSTRING_ASC,
                                 reinterpret_cast<const unsigned char*>(common_name.c_str()), -1,
                                 -1, 0) != 1) {
    return Failed("fill in a certificate");
  }
  return certificate;
}

absl::StatusOr<KeyAndCertificate> ToPem(EVP_PKEY* key, X509* certificate) {
  const Bio key_bio(BIO_new(BIO_s_mem()));
  const Bio certificate_bio(BIO_new(BIO_s_mem()));
  if (PEM_write_bio_PKCS8PrivateKey(key_bio.get(), key, nullptr, nullptr, 0, nullptr, nullptr) !=
          1 ||
      PEM_write_bio_X509(certificate_bio.get(), certificate) != 1) {
    return Failed("write PEM");
  }
  return KeyAndCertificate{TextOf(key_bio), TextOf(certificate_bio)};
}

bool IsIpAddress(const std::string& host) {
  std::array<unsigned char, 16> address{};
  return inet_pton(AF_INET, host.c_str(), address.data()) == 1 ||
         inet_pton(AF_INET6, host.c_str(), address.data()) == 1;
}

absl::Time TimeOf(const ASN1_TIME* time) {
  std::tm broken{};
  if (ASN1_TIME_to_tm(time, &broken) != 1) return absl::InfinitePast();
  return absl::FromTM(broken, absl::UTCTimeZone());
}

}  // namespace

absl::StatusOr<KeyAndCertificate> MakeAuthority(const std::string& common_name,
                                                const Validity& validity) {
  const Key key(EVP_EC_gen("P-256"));
  if (key == nullptr) return Failed("make a P-256 key");
  PCMOE_ASSIGN_OR_RETURN(const Certificate certificate, Blank(common_name, validity, key.get()));
  X509* const self = certificate.get();
  if (X509_set_issuer_name(self, X509_get_subject_name(self)) != 1) return Failed("set an issuer");
  PCMOE_RETURN_IF_ERROR(
      AddExtension(self, self, NID_basic_constraints, "critical,CA:TRUE,pathlen:0"));
  PCMOE_RETURN_IF_ERROR(AddExtension(self, self, NID_key_usage, "critical,keyCertSign,cRLSign"));
  PCMOE_RETURN_IF_ERROR(AddExtension(self, self, NID_subject_key_identifier, "hash"));
  if (X509_sign(self, key.get(), EVP_sha256()) == 0) return Failed("sign a certificate");
  return ToPem(key.get(), self);
}

absl::StatusOr<KeyAndCertificate> IssueCertificate(const Names& names, const Validity& validity,
                                                   const KeyAndCertificate& authority) {
  PCMOE_ASSIGN_OR_RETURN(const Certificate issuer, ParseCertificate(authority.certificate_pem));
  PCMOE_ASSIGN_OR_RETURN(const Key issuer_key, ParseKey(authority.key_pem));
  const Key key(EVP_EC_gen("P-256"));
  if (key == nullptr) return Failed("make a P-256 key");
  PCMOE_ASSIGN_OR_RETURN(const Certificate certificate,
                         Blank(names.common_name, validity, key.get()));
  X509* const self = certificate.get();
  if (X509_set_issuer_name(self, X509_get_subject_name(issuer.get())) != 1) {
    return Failed("set an issuer");
  }
  std::string alternatives;
  for (const std::string& host : names.hosts) {
    absl::StrAppend(&alternatives, alternatives.empty() ? "" : ",",
                    IsIpAddress(host) ? "IP:" : "DNS:", host);
  }
  const std::pair<int, std::string> extensions[] = {
      {NID_basic_constraints, "critical,CA:FALSE"},   {NID_key_usage, "critical,digitalSignature"},
      {NID_ext_key_usage, "serverAuth,clientAuth"},   {NID_subject_key_identifier, "hash"},
      {NID_authority_key_identifier, "keyid:always"}, {NID_subject_alt_name, alternatives}};
  for (const auto& [id, value] : extensions) {
    if (!value.empty()) PCMOE_RETURN_IF_ERROR(AddExtension(self, issuer.get(), id, value));
  }
  if (X509_sign(self, issuer_key.get(), EVP_sha256()) == 0) return Failed("sign a certificate");
  return ToPem(key.get(), self);
}

absl::StatusOr<CertificateFacts> ReadCertificate(const std::string& pem) {
  PCMOE_ASSIGN_OR_RETURN(const Certificate certificate, ParseCertificate(pem));
  CertificateFacts facts;
  facts.validity = {TimeOf(X509_get0_notBefore(certificate.get())),
                    TimeOf(X509_get0_notAfter(certificate.get()))};
  const GeneralNames names(static_cast<GENERAL_NAMES*>(
      X509_get_ext_d2i(certificate.get(), NID_subject_alt_name, nullptr, nullptr)));
  for (int i = 0; names != nullptr && i < sk_GENERAL_NAME_num(names.get()); ++i) {
    int type = 0;
    const void* value = GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names.get(), i), &type);
    if (type != GEN_DNS && type != GEN_IPADD) continue;
    const auto* text = static_cast<const ASN1_STRING*>(value);
    const auto* data = ASN1_STRING_get0_data(text);
    const int size = ASN1_STRING_length(text);
    if (type == GEN_DNS) {
      facts.dns_names.emplace_back(reinterpret_cast<const char*>(data), static_cast<size_t>(size));
    } else if (size == 4 || size == 16) {
      std::array<char, INET6_ADDRSTRLEN> address{};
      inet_ntop(size == 4 ? AF_INET : AF_INET6, data, address.data(), address.size());
      facts.ip_addresses.emplace_back(address.data());
    }
  }
  return facts;
}

absl::Status CheckKeyBelongs(const KeyAndCertificate& pair) {
  PCMOE_ASSIGN_OR_RETURN(const Certificate certificate, ParseCertificate(pair.certificate_pem));
  PCMOE_ASSIGN_OR_RETURN(const Key key, ParseKey(pair.key_pem));
  const bool belongs = X509_check_private_key(certificate.get(), key.get()) == 1;
  ERR_clear_error();
  return belongs ? absl::OkStatus()
                 : absl::FailedPreconditionError("the private key is not the certificate's");
}

absl::Status CheckSignedBy(const std::string& certificate_pem, const std::string& authority_pem) {
  PCMOE_ASSIGN_OR_RETURN(const Certificate certificate, ParseCertificate(certificate_pem));
  PCMOE_ASSIGN_OR_RETURN(const Certificate authority, ParseCertificate(authority_pem));
  const bool signed_by = X509_check_issued(authority.get(), certificate.get()) == X509_V_OK &&
                         X509_verify(certificate.get(), X509_get0_pubkey(authority.get())) == 1;
  ERR_clear_error();
  return signed_by ? absl::OkStatus()
                   : absl::UnauthenticatedError("the certificate is not signed by this authority");
}

}  // namespace pcmoe::provision
