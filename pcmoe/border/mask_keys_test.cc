// pcmoe/border/mask_keys_test.cc: published vectors, and every share that must be refused.
#include "pcmoe/border/mask_keys.h"

#include <algorithm>
#include <string_view>
#include <vector>

#include "absl/strings/escaping.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "pcmoe/border/counter_stream.h"
#include "pcmoe/provision/certificate.h"

namespace pcmoe::border {
namespace {

using testing::HasSubstr;

std::vector<uint8_t> FromHex(absl::string_view hex) {
  const std::string bytes = absl::HexStringToBytes(hex);
  return {bytes.begin(), bytes.end()};
}

template <size_t kBytes = 32>
std::array<uint8_t, kBytes> Array(absl::string_view hex) {
  const std::vector<uint8_t> bytes = FromHex(hex);
  std::array<uint8_t, kBytes> array{};
  EXPECT_EQ(bytes.size(), kBytes);
  std::ranges::copy(bytes, array.begin());
  return array;
}

TEST(X25519, GivesTheVectorsOfRfc7748) {
  // 5.2, both.
  EXPECT_EQ(*MaskKeyPair::FromSecret(
                 Array("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4"))
                 .Agree(Array("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")),
            Array("c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"));
  EXPECT_EQ(*MaskKeyPair::FromSecret(
                 Array("4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d"))
                 .Agree(Array("e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493")),
            Array("95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957"));
  // 6.1, Bob's public key.
  EXPECT_EQ(MaskKeyPair::FromSecret(
                Array("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"))
                .public_key(),
            Array("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"));
}

TEST(Hkdf, GivesTheVectorsOfRfc5869) {  // A.1 and A.3
  const std::vector<uint8_t> secret(22, 0x0b);
  std::array<uint8_t, 42> out{};
  ASSERT_TRUE(
      Hkdf(secret, FromHex("000102030405060708090a0b0c"), FromHex("f0f1f2f3f4f5f6f7f8f9"), out)
          .ok());
  EXPECT_EQ(out, Array<42>("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"
                           "34007208d5b887185865"));
  ASSERT_TRUE(Hkdf(secret, {}, {}, out).ok());
  EXPECT_EQ(out, Array<42>("8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
                           "9d201395faa4b61a96c8"));
}

TEST(CounterStream, GivesTheVectorsOfSp800_38a) {  // F.5.1, output blocks
  auto stream = CounterStream::Create(Array<16>("2b7e151628aed2a6abf7158809cf4f3c"),
                                      Array<16>("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"));
  ASSERT_TRUE(stream.ok());
  std::array<uint8_t, 32> out{};
  // In uneven pieces: a stream does not depend on how it is asked for.
  ASSERT_TRUE(stream->Fill(std::span(out).first(5)).ok());
  ASSERT_TRUE(stream->Fill(std::span(out).subspan(5)).ok());
  EXPECT_EQ(out, Array("ec8cdf7398607cb0f2d21675ea9ea1e4362b7c3c6773516318a077d7fc5073ae"));
}

TEST(MaskKeyPair, IsFreshAndRefusesKeysOfSmallOrder) {
  const MaskKeyPair a = MaskKeyPair::Generate();
  const MaskKeyPair b = MaskKeyPair::Generate();
  EXPECT_NE(a.public_key(), b.public_key());
  EXPECT_EQ(*a.Agree(b.public_key()), *b.Agree(a.public_key()));
  MaskPublicKey one{1};
  for (const MaskPublicKey& weak :
       {MaskPublicKey{}, one,
        Array("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
        Array("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f")}) {
    EXPECT_EQ(a.Agree(weak).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

// Certificates are made once: a federation with parties a and b, and another federation.
class MaskKeyShare : public testing::Test {
 protected:
  static constexpr char kNameOfA[] = "a.test.pcmoe";

  static void SetUpTestSuite() {
    const absl::Time now = absl::Now();
    const provision::Validity validity{now - absl::Hours(1), now + absl::Hours(1)};
    ca_ = new provision::KeyAndCertificate(*provision::MakeAuthority("test", validity));
    foreign_ca_ = new provision::KeyAndCertificate(*provision::MakeAuthority("test", validity));
    a_ = new provision::KeyAndCertificate(
        *provision::IssueCertificate({"a", {kNameOfA}}, validity, *ca_));
    b_ = new provision::KeyAndCertificate(
        *provision::IssueCertificate({"b", {"b.test.pcmoe"}}, validity, *ca_));
    foreign_a_ = new provision::KeyAndCertificate(
        *provision::IssueCertificate({"a", {kNameOfA}}, validity, *foreign_ca_));
  }

  static std::vector<uint8_t> Share(const provision::KeyAndCertificate& who, int party = 0) {
    const auto share = SignMaskKey(key_, context_, party, who.certificate_pem, who.key_pem);
    EXPECT_TRUE(share.ok()) << share.status();
    return {share->bytes().begin(), share->bytes().end()};
  }
  static std::string Refusal(std::span<const uint8_t> share, const MaskContext& context = context_,
                             int party = 0, absl::Time now = absl::Now()) {
    const auto key = VerifyMaskKey(share, context, party, kNameOfA, ca_->certificate_pem, now);
    EXPECT_EQ(key.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(key.status().message());
  }

  static provision::KeyAndCertificate *ca_, *foreign_ca_, *a_, *b_, *foreign_a_;
  static const MaskKeyPair key_;
  static constexpr MaskContext context_{{1, 2, 3}, 40, 5};
};
provision::KeyAndCertificate* MaskKeyShare::ca_;
provision::KeyAndCertificate* MaskKeyShare::foreign_ca_;
provision::KeyAndCertificate* MaskKeyShare::a_;
provision::KeyAndCertificate* MaskKeyShare::b_;
provision::KeyAndCertificate* MaskKeyShare::foreign_a_;
const MaskKeyPair MaskKeyShare::key_ = MaskKeyPair::Generate();

TEST_F(MaskKeyShare, IsVerifiedAndOfOneLength) {
  const std::vector<uint8_t> share = Share(*a_);
  const auto key = VerifyMaskKey(share, context_, 0, kNameOfA, ca_->certificate_pem);
  ASSERT_TRUE(key.ok()) << key.status();
  EXPECT_EQ(*key, key_.public_key());
  // An ECDSA signature has 70 to 72 bytes; what an onlooker sees must not change with it.
  for (int i = 0; i < 20; ++i) EXPECT_EQ(Share(*a_).size(), share.size());
}

TEST_F(MaskKeyShare, WithAnyByteChangedIsRefused) {
  std::vector<uint8_t> share = Share(*a_);
  for (size_t at = 0; at < share.size(); ++at) {
    for (const uint8_t flip : {uint8_t{1}, uint8_t{0x80}}) {
      share[at] ^= flip;
      EXPECT_FALSE(VerifyMaskKey(share, context_, 0, kNameOfA, ca_->certificate_pem).ok()) << at;
      share[at] ^= flip;
    }
  }
  for (size_t size = 0; size < share.size(); size += 7) Refusal(std::span(share).first(size));
  share.push_back(0);
  EXPECT_THAT(Refusal(share), HasSubstr("not laid out"));
}

TEST_F(MaskKeyShare, ForAnotherPartyOrMomentIsRefused) {
  const std::vector<uint8_t> share = Share(*a_);
  for (const MaskContext& other : {MaskContext{{1, 2, 4}, 40, 5}, MaskContext{{1, 2, 3}, 41, 5},
                                   MaskContext{{1, 2, 3}, 40, 6}}) {
    EXPECT_THAT(Refusal(share, other), HasSubstr("run, step and attempt"));
  }
  EXPECT_THAT(Refusal(share, context_, 1), HasSubstr("run, step and attempt"));
}

TEST_F(MaskKeyShare, OfAnotherIdentityIsRefused) {
  EXPECT_THAT(Refusal(Share(*b_)), HasSubstr("names another party"));
  EXPECT_THAT(Refusal(Share(*foreign_a_)), HasSubstr("federation's authority"));
  EXPECT_THAT(Refusal(Share(*a_), context_, 0, absl::Now() + absl::Hours(2)),
              HasSubstr("not valid now"));
  // b says that it is a: a's certificate, b's signature.
  std::vector<uint8_t> share = Share(*a_);
  const std::vector<uint8_t> by_b = Share(*b_);
  std::copy(by_b.end() - 146, by_b.end(), share.end() - 146);
  EXPECT_THAT(Refusal(share), HasSubstr("not signed by its party"));
}

TEST_F(MaskKeyShare, IsNotSignedWithAKeyThatIsNotTheCertificates) {
  EXPECT_EQ(SignMaskKey(key_, context_, 0, a_->certificate_pem, b_->key_pem).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(SignMaskKey(key_, context_, 0, "", a_->key_pem).ok());
  EXPECT_FALSE(SignMaskKey(key_, context_, 0, a_->certificate_pem, "no key").ok());
  EXPECT_FALSE(VerifyMaskKey(Share(*a_), context_, 0, kNameOfA, "no authority").ok());
  EXPECT_FALSE(VerifyMaskKey(Share(*a_), context_, 0, "", ca_->certificate_pem).ok());
}

}  // namespace
}  // namespace pcmoe::border
