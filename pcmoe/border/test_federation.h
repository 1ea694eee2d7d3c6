// pcmoe/border/test_federation.h: for tests: masks of a whole federation, rounding.
#pragma once

#include <vector>

#include "pcmoe/border/fixed_point.h"
#include "pcmoe/border/pairwise_masks.h"

namespace pcmoe::border {

/// Secret keys that depend on `seed` and the party alone.
inline std::vector<MaskKeyPair> MakeKeys(int parties, uint8_t seed = 1) {
  std::vector<MaskKeyPair> keys;
  for (int party = 0; party < parties; ++party) {
    std::array<uint8_t, 32> secret{};
    secret.fill(static_cast<uint8_t>(17 * party + 3));
    secret[1] = seed;
    keys.push_back(MaskKeyPair::FromSecret(secret));
  }
  return keys;
}

inline std::vector<MaskPublicKey> PublicKeys(const std::vector<MaskKeyPair>& keys) {
  std::vector<MaskPublicKey> result;
  for (const MaskKeyPair& key : keys) result.push_back(key.public_key());
  return result;
}

/// Every party's masks, by party.
inline std::vector<PairwiseMasks> MakeFederation(int parties, const MaskContext& context = {},
                                                 uint8_t seed = 1) {
  const auto keys = MakeKeys(parties, seed);
  std::vector<PairwiseMasks> masks;
  for (int party = 0; party < parties; ++party) {
    masks.push_back(*PairwiseMasks::Create(party, keys[party], PublicKeys(keys), context));
  }
  return masks;
}

/// All parties but `party` and `owner`.
inline std::vector<int> PeersOf(int party, int parties, int owner) {
  std::vector<int> peers;
  for (int peer = 0; peer < parties; ++peer) {
    if (peer != party && peer != owner) peers.push_back(peer);
  }
  return peers;
}

/// A rounding key that depends on `seed` alone.
inline RoundingKey Rounding(uint8_t seed) {
  std::array<uint8_t, 32> secret{};
  secret.fill(seed);
  return *RoundingKey::Derive(secret, wire::RunId{});
}

/// The integers themselves: one contributor, no peers.
inline std::vector<int32_t> Integers(const std::vector<float>& values, const FixedPoint& scale,
                                     const RoundingKey& rounding, const MaskPlace& place) {
  auto masks = MakeFederation(2);
  masks[0].AllowNoPeers();
  std::vector<uint32_t> out(values.size());
  const auto status = MaskedFixedPoint(values.data(), values.size(), scale, rounding, place, {},
                                       masks[0], out.data());
  if (!status.ok()) return {};
  return {out.begin(), out.end()};
}

}  // namespace pcmoe::border
