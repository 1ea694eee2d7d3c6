// pcmoe/border/mask_key_share.cc: see mask_keys.h; the signed share that travels.
//
// Layout, little-endian: 32 bytes public key | u16 C | C bytes certificate (DER) | u16 S |
// S bytes signature | zeros up to kSignatureBytes. The padding keeps the length of a party's shares
// equal, as that of an ECDSA signature is not.
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "pcmoe/base/digest.h"
#include "pcmoe/border/byte_list.h"
#include "pcmoe/border/mask_keys.h"

namespace pcmoe::border {
namespace {

// Enough for every curve of OpenSSL's (P-521: 139 bytes) and for Ed25519 (64).
constexpr size_t kSignatureBytes = 144;
constexpr size_t kMaxCertificateBytes = 8192;

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
using DigestContext = std::unique_ptr<EVP_MD_CTX, Free<EVP_MD_CTX_free>>;
using Store = std::unique_ptr<X509_STORE, Free<X509_STORE_free>>;
using StoreContext = std::unique_ptr<X509_STORE_CTX, Free<X509_STORE_CTX_free>>;

// What OpenSSL says of a failure holds bytes of the peer's; nobody may read it later by mistake.
absl::Status Refused(const char* sentence) {
  ERR_clear_error();
  return absl::InvalidArgumentError(sentence);
}

// A file must never make OpenSSL ask for a passphrase on the terminal.
int NoPassphrase(char*, int, int, void*) { return -1; }

Bio ReadBio(const std::string& pem) {
  return Bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
}

Certificate ReadPemCertificate(const std::string& pem) {
  return Certificate(PEM_read_bio_X509(ReadBio(pem).get(), nullptr, NoPassphrase, nullptr));
}

// The certificate is signed too: a share is the same bytes for everybody, or is refused.
ByteList SignedBytes(const MaskPublicKey& key, const MaskContext& context, wire::PartyIndex party,
                     std::span<const uint8_t> certificate) {
  const base::Sha256 digest =
      base::DigestOf({reinterpret_cast<const char*>(certificate.data()), certificate.size()});
  ByteList list("pcmoe mask key 1\n");
  list.Append(context.run).Number(context.step).Number(context.attempt);
  list.Number(static_cast<uint32_t>(party)).Append(key).Append(digest);
  return list;
}

// Ed25519 hashes by itself.
const EVP_MD* HashFor(const EVP_PKEY* key) {
  return EVP_PKEY_is_a(key, "ED25519") == 1 ? nullptr : EVP_sha256();
}

bool Usable(const EVP_PKEY* key) {
  return EVP_PKEY_is_a(key, "ED25519") == 1 || EVP_PKEY_is_a(key, "EC") == 1;
}

struct Parts {
  MaskPublicKey key{};
  std::span<const uint8_t> certificate;
  std::span<const uint8_t> signature;
};

bool Split(std::span<const uint8_t> share, Parts& parts) {
  constexpr size_t kFixedBytes = sizeof(MaskPublicKey) + 2 + 2 + kSignatureBytes;
  if (share.size() < kFixedBytes) return false;
  std::memcpy(parts.key.data(), share.data(), parts.key.size());
  share = share.subspan(parts.key.size());
  const size_t certificate_bytes = share[0] | static_cast<size_t>(share[1]) << 8;
  if (certificate_bytes > kMaxCertificateBytes ||
      share.size() != 2 + certificate_bytes + 2 + kSignatureBytes) {
    return false;
  }
  parts.certificate = share.subspan(2, certificate_bytes);
  share = share.subspan(2 + certificate_bytes);
  const size_t signature_bytes = share[0] | static_cast<size_t>(share[1]) << 8;
  if (signature_bytes > kSignatureBytes) return false;
  parts.signature = share.subspan(2, signature_bytes);
  return std::ranges::all_of(share.subspan(2 + signature_bytes),
                             [](uint8_t byte) { return byte == 0; });
}

Certificate ReadDerCertificate(std::span<const uint8_t> der) {
  const uint8_t* at = der.data();
  Certificate certificate(d2i_X509(nullptr, &at, static_cast<long>(der.size())));
  if (at != der.data() + der.size()) certificate.reset();
  return certificate;
}

bool SignedByAuthority(X509* certificate, const std::string& ca_pem, absl::Time now) {
  const Certificate authority = ReadPemCertificate(ca_pem);
  const Store store(X509_STORE_new());
  const StoreContext context(X509_STORE_CTX_new());
  if (authority == nullptr || store == nullptr || context == nullptr ||
      X509_STORE_add_cert(store.get(), authority.get()) != 1 ||
      X509_STORE_CTX_init(context.get(), store.get(), certificate, nullptr) != 1) {
    return false;
  }
  X509_STORE_CTX_set_time(context.get(), 0, absl::ToTimeT(now));
  return X509_verify_cert(context.get()) == 1 &&
         (X509_get_key_usage(certificate) & KU_DIGITAL_SIGNATURE) != 0;
}

bool Names(X509* certificate, const std::string& identity_name) {
  return !identity_name.empty() &&
         X509_check_host(certificate, identity_name.data(), identity_name.size(),
                         X509_CHECK_FLAG_NEVER_CHECK_SUBJECT | X509_CHECK_FLAG_NO_WILDCARDS,
                         nullptr) == 1;
}

bool SignatureHolds(EVP_PKEY* key, std::span<const uint8_t> signature, const ByteList& list) {
  const std::span<const uint8_t> message = list.bytes();
  const DigestContext context(EVP_MD_CTX_new());
  return context != nullptr &&
         EVP_DigestVerifyInit(context.get(), nullptr, HashFor(key), nullptr, key) == 1 &&
         EVP_DigestVerify(context.get(), signature.data(), signature.size(), message.data(),
                          message.size()) == 1;
}

absl::StatusOr<std::vector<uint8_t>> Der(X509* certificate) {
  uint8_t* data = nullptr;
  const int size = i2d_X509(certificate, &data);
  if (size <= 0 || static_cast<size_t>(size) > kMaxCertificateBytes) {
    OPENSSL_free(data);
    return Refused("this party's certificate is larger than 8192 bytes, so no share can carry it");
  }
  std::vector<uint8_t> der(data, data + size);
  OPENSSL_free(data);
  return der;
}

}  // namespace

absl::StatusOr<wire::Buffer> SignMaskKey(const MaskKeyPair& key, const MaskContext& context,
                                         wire::PartyIndex party, const std::string& certificate_pem,
                                         const std::string& key_pem) {
  const Certificate certificate = ReadPemCertificate(certificate_pem);
  const Key signer(PEM_read_bio_PrivateKey(ReadBio(key_pem).get(), nullptr, NoPassphrase, nullptr));
  if (certificate == nullptr || signer == nullptr || !Usable(signer.get()) ||
      X509_check_private_key(certificate.get(), signer.get()) != 1) {
    return Refused(
        "this party's certificate and key cannot sign a mask key: they must be a PEM certificate "
        "and its EC or Ed25519 key; get the party's folder again from whoever provisioned it");
  }
  PCMOE_ASSIGN_OR_RETURN(const std::vector<uint8_t> der, Der(certificate.get()));
  const ByteList list = SignedBytes(key.public_key(), context, party, der);
  const std::span<const uint8_t> message = list.bytes();
  std::array<uint8_t, kSignatureBytes> signature{};
  size_t signature_bytes = signature.size();
  const DigestContext digest(EVP_MD_CTX_new());
  if (digest == nullptr ||
      EVP_DigestSignInit(digest.get(), nullptr, HashFor(signer.get()), nullptr, signer.get()) !=
          1 ||
      EVP_DigestSign(digest.get(), signature.data(), &signature_bytes, message.data(),
                     message.size()) != 1) {
    ERR_clear_error();
    return absl::InternalError("OpenSSL cannot sign a mask key with this party's key");
  }
  ByteList share("");
  share.Append(key.public_key()).Number(static_cast<uint16_t>(der.size())).Append(der);
  share.Number(static_cast<uint16_t>(signature_bytes));
  share.Append({signature.data(), signature_bytes}).Zeros(kSignatureBytes - signature_bytes);
  wire::Buffer buffer = wire::Buffer::Allocate(share.bytes().size());
  std::ranges::copy(share.bytes(), buffer.writable().begin());
  return buffer;
}

absl::StatusOr<MaskPublicKey> VerifyMaskKey(std::span<const uint8_t> share,
                                            const MaskContext& context, wire::PartyIndex party,
                                            const std::string& identity_name,
                                            const std::string& ca_pem, absl::Time now) {
  Parts parts;
  if (!Split(share, parts)) return Refused("a mask key's message is not laid out as one");
  const Certificate certificate = ReadDerCertificate(parts.certificate);
  if (certificate == nullptr) return Refused("a mask key came without a certificate");
  if (!SignedByAuthority(certificate.get(), ca_pem, now)) {
    return Refused(
        "a mask key's certificate is not valid now, or not signed by this federation's authority");
  }
  if (!Names(certificate.get(), identity_name)) {
    return Refused("a mask key's certificate names another party than the one that sent it");
  }
  EVP_PKEY* const signer = X509_get0_pubkey(certificate.get());
  if (signer == nullptr || !Usable(signer) ||
      !SignatureHolds(signer, parts.signature,
                      SignedBytes(parts.key, context, party, parts.certificate))) {
    return Refused("a mask key is not signed by its party for this run, step and attempt");
  }
  ERR_clear_error();
  return parts.key;
}

}  // namespace pcmoe::border
