// fuzz/mask_fuzz.cc: any bytes are refused as a mask key, or are a share that holds to the last
// bit; any bytes are a share of a sum.
//
// Input: a byte that says which of the two, then the share. The first byte of a mask key's input
// also says which of its bits to change once it was accepted.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "fuzz/check.h"
#include "pcmoe/border/fixed_point.h"
#include "pcmoe/border/mask_keys.h"

namespace {

// An authority whose key was thrown away after it had signed the certificate in the corpus.
constexpr char kAuthority[] = R"(-----BEGIN CERTIFICATE-----
MIIBYDCCAQegAwIBAgIQGdiWxVScUcHehqVg4ZNnCTAKBggqhkjOPQQDAjAPMQ0w
CwYDVQQDDARmdXp6MB4XDTI2MDkyMTEzMTMyMFoXDTM2MDkxODE0MTMyMFowDzEN
MAsGA1UEAwwEZnV6ejBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABF+fsJJLAQuU
mAg+futW++sQAciJf7+ylmgGCOrmQUPZrq5IVV1mcKkKYGBu0YPpQJz0so11GJiB
OICUi19iWiOjRTBDMBIGA1UdEwEB/wQIMAYBAf8CAQAwDgYDVR0PAQH/BAQDAgEG
MB0GA1UdDgQWBBTmrQ/+2Rrn+nffYhHYfbhteq8w3zAKBggqhkjOPQQDAgNHADBE
AiBYJCeTmzAraR6Z4v6QHFk+E8AyvDVDLOwWbu2rttWstAIgIdRGRkQO+18cXHzO
N7bjLFoGIyLhnHN8VdjW++Y+81o=
-----END CERTIFICATE-----
)";
constexpr int64_t kNow = 1790003600;

void VerifyAnything(uint8_t which, std::span<const uint8_t> share) {
  using pcmoe::border::VerifyMaskKey;
  const pcmoe::border::MaskContext context{{1, 2, 3}, 4, 5};
  const auto verify = [&](std::span<const uint8_t> bytes) {
    return VerifyMaskKey(bytes, context, 0, "a.fuzz.pcmoe", kAuthority,
                         absl::FromUnixSeconds(kNow));
  };
  const auto key = verify(share);
  if (!key.ok()) return;
  FUZZ_CHECK(std::equal(key->begin(), key->end(), share.begin()));
  std::vector<uint8_t> changed(share.begin(), share.end());
  changed[which * 31 % changed.size()] ^= static_cast<uint8_t>(1 << (which & 7));
  FUZZ_CHECK(!verify(changed).ok());
}

void AddAnything(std::span<const uint8_t> share) {
  const size_t count = share.size() / 4;
  std::vector<uint32_t> sum(count, 7);
  pcmoe::border::AddInto(sum.data(), share.data(), count);
  for (size_t i = 0; i < count; ++i) {
    uint32_t word = 0;
    std::memcpy(&word, share.data() + 4 * i, sizeof(word));
    FUZZ_CHECK(sum[i] == word + 7);
  }
  const auto scale = pcmoe::border::FixedPoint::For(share, static_cast<int>(share.size()));
  if (!scale.ok()) return;
  std::vector<float> values(count);
  pcmoe::border::DecodeSum(sum.data(), count, *scale, values.data());
  FUZZ_CHECK(static_cast<double>(scale->limit) * static_cast<double>(share.size()) < 2147483648.0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  const std::span<const uint8_t> share(data + 1, size - 1);
  if (data[0] == 255) {
    AddAnything(share);
  } else {
    VerifyAnything(data[0], share);
  }
  return 0;
}
