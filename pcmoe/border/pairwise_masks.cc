// pcmoe/border/pairwise_masks.cc: see pairwise_masks.h.
#include "pcmoe/border/pairwise_masks.h"

#include <sodium.h>

#include <algorithm>

#include "pcmoe/border/byte_list.h"

namespace pcmoe::border {
namespace {

// Into `key` in place: no copy of it is left on the stack.
absl::Status DeriveKeyOfPair(const MaskKeyPair& own, wire::PartyIndex self, wire::PartyIndex peer,
                             const std::vector<MaskPublicKey>& public_keys,
                             const MaskContext& context, CounterStream::Key& key) {
  ByteList salt("");
  salt.Append(context.run).Number(context.step).Number(context.attempt);
  const auto [lower, higher] = std::minmax(self, peer);
  ByteList info("pcmoe pairwise mask 1\n");
  info.Append(public_keys[lower]).Append(public_keys[higher]);
  info.Number(static_cast<uint32_t>(lower)).Number(static_cast<uint32_t>(higher));
  PCMOE_ASSIGN_OR_RETURN(auto shared, own.Agree(public_keys[peer]));
  const absl::Status status = Hkdf(shared, salt.bytes(), info.bytes(), key);
  sodium_memzero(shared.data(), shared.size());
  return status;
}

absl::Status CheckKeys(wire::PartyIndex self, const MaskKeyPair& own,
                       const std::vector<MaskPublicKey>& public_keys) {
  const int parties = static_cast<int>(public_keys.size());
  if (parties < 2 || self < 0 || self >= parties) {
    return absl::InvalidArgumentError("masks need two parties or more, and this party among them");
  }
  if (public_keys[self] != own.public_key()) {
    return absl::InvalidArgumentError("this party's mask key is not the one it told the others");
  }
  std::vector<MaskPublicKey> sorted = public_keys;
  std::ranges::sort(sorted);
  if (std::ranges::adjacent_find(sorted) != sorted.end()) {
    return absl::InvalidArgumentError(
        "two parties told the same mask key: one of them copied the other's");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CounterStream::Block> FirstBlockOf(const MaskPlace& place) {
  if ((place.step >> 48) != 0) {
    return absl::InvalidArgumentError("a step's number is over 48 bits, more than a mask can hold");
  }
  CounterStream::Block block{};  // big-endian, as the cipher counts; the last four bytes count
  for (int i = 0; i < 6; ++i) block[i] = static_cast<uint8_t>(place.step >> (8 * (5 - i)));
  for (int i = 0; i < 2; ++i) block[6 + i] = static_cast<uint8_t>(place.layer >> (8 * (1 - i)));
  for (int i = 0; i < 4; ++i) block[8 + i] = static_cast<uint8_t>(place.unit >> (8 * (3 - i)));
  return block;
}

absl::StatusOr<PairwiseMasks> PairwiseMasks::Create(wire::PartyIndex self, const MaskKeyPair& own,
                                                    const std::vector<MaskPublicKey>& public_keys,
                                                    const MaskContext& context) {
  PCMOE_RETURN_IF_ERROR(CheckKeys(self, own, public_keys));
  // Made first: whatever fails below, its destructor wipes the keys derived so far.
  PairwiseMasks masks(self, std::vector<CounterStream::Key>(public_keys.size()));
  for (wire::PartyIndex peer = 0; peer < masks.parties(); ++peer) {
    if (peer == self) continue;
    PCMOE_RETURN_IF_ERROR(
        DeriveKeyOfPair(own, self, peer, public_keys, context, masks.keys_[peer]));
  }
  return masks;
}

PairwiseMasks::~PairwiseMasks() {
  if (!keys_.empty()) sodium_memzero(keys_.data(), keys_.size() * sizeof(keys_[0]));
}

absl::Status PairwiseMasks::CheckPeers(std::span<const wire::PartyIndex> peers) const {
  if (peers.empty() && !allow_no_peers_) {
    return absl::InvalidArgumentError(
        "nothing leaves without a mask, and these values have no "
        "peer to share one with");
  }
  std::vector<bool> seen(keys_.size());
  for (const wire::PartyIndex peer : peers) {
    if (peer < 0 || peer >= parties() || peer == self_ || seen[peer]) {
      return absl::InvalidArgumentError("the peers of a mask must be other parties, each once");
    }
    seen[peer] = true;
  }
  return absl::OkStatus();
}

absl::Status PairwiseMasks::MarkUsed(const MaskPlace& place) {
  const std::scoped_lock lock(used_->mutex);
  if (place.step > used_->step) {
    used_->step = place.step;
    used_->units.clear();
  }
  const uint64_t unit = uint64_t{place.layer} << 32 | place.unit;
  if (place.step < used_->step || !used_->units.insert(unit).second) {
    return absl::FailedPreconditionError(
        "a mask of a step, layer and unit was asked for twice, or after a later step's; masks are "
        "used once, so start the attempt again with fresh mask keys");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<CounterStream>> PairwiseMasks::Take(
    const MaskPlace& place, std::span<const wire::PartyIndex> peers) {
  PCMOE_ASSIGN_OR_RETURN(const CounterStream::Block first, FirstBlockOf(place));
  PCMOE_RETURN_IF_ERROR(CheckPeers(peers));
  PCMOE_RETURN_IF_ERROR(MarkUsed(place));
  std::vector<CounterStream> streams;
  streams.reserve(peers.size());
  for (const wire::PartyIndex peer : peers) {
    PCMOE_ASSIGN_OR_RETURN(CounterStream stream, CounterStream::Create(keys_[peer], first));
    streams.push_back(std::move(stream));
  }
  return streams;
}

absl::StatusOr<NetMask> NetMask::Create(PairwiseMasks& masks, const MaskPlace& place,
                                        std::span<const wire::PartyIndex> peers) {
  NetMask mask;
  PCMOE_ASSIGN_OR_RETURN(mask.streams_, masks.Take(place, peers));
  for (const wire::PartyIndex peer : peers) mask.subtract_.push_back(masks.self() > peer);
  mask.blocks_ = std::make_unique<Blocks>();
  return mask;
}

NetMask::~NetMask() {
  if (blocks_ != nullptr) sodium_memzero(blocks_.get(), sizeof(Blocks));
}

absl::StatusOr<MaskPair> NetMask::NextBlock(Ahead ahead) {
  if (words_ >= kMaxMaskWords) {
    return absl::ResourceExhaustedError("a unit is larger than 64 GiB, more than one mask covers");
  }
  words_ += kBlockWords;
  // The blocks start as zeros: without a peer, or with one, what is missing masks nothing.
  MaskPair pair{blocks_->first.data(), blocks_->second.data()};
  for (size_t i = 0; i < streams_.size(); ++i) {
    if (i == 0) {
      PCMOE_RETURN_IF_ERROR(streams_[i].Fill(std::span<uint32_t>(blocks_->first), ahead));
      pair.subtract_first = subtract_[i];
      continue;
    }
    if (i > 1) {  // first becomes the sum of all streams but the last
      ActiveMaskLoops().combine(blocks_->first.data(), pair.subtract_first, blocks_->second.data(),
                                pair.subtract_second, kBlockWords);
      pair.subtract_first = false;
    }
    PCMOE_RETURN_IF_ERROR(streams_[i].Fill(std::span<uint32_t>(blocks_->second), ahead));
    pair.subtract_second = subtract_[i];
  }
  return pair;
}

}  // namespace pcmoe::border
