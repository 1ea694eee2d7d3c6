// pcmoe/federation/manifest.cc: the manifest's rules; manifest_json.cc reads and writes it.
#include "pcmoe/federation/manifest.h"

#include <algorithm>
#include <set>

namespace pcmoe::federation {
namespace {

constexpr uint64_t kMinMessageBytes = uint64_t{4} << 10;
constexpr uint64_t kMaxMessageBytes = uint64_t{16} << 30;

bool IsHost(std::string_view text) {
  return !text.empty() && text.size() <= 253 && std::ranges::all_of(text, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '-' || c == ':';
  });
}

absl::Status Broken(absl::string_view sentence) {
  return absl::InvalidArgumentError(absl::StrCat("manifest: ", sentence));
}

absl::Status ValidateParties(const std::vector<PartyEntry>& parties) {
  if (parties.empty() || parties.size() > kMaxParties) {
    return Broken(absl::StrCat("parties must hold 1 to ", kMaxParties, " parties"));
  }
  std::set<std::string_view> names;
  std::set<std::pair<std::string_view, uint16_t>> addresses;
  for (const PartyEntry& party : parties) {
    if (!IsDnsLabel(party.name)) {
      return Broken("a party's name must be 1 to 63 lower-case letters, digits and '-'");
    }
    if (!names.insert(party.name).second) {
      return Broken(absl::StrCat("two parties are called '", party.name, "'"));
    }
    if (!IsHost(party.host)) {
      return Broken(absl::StrCat("party '", party.name, "' needs a host name or an IP address"));
    }
    if (party.port == 0) {
      return Broken(absl::StrCat("party '", party.name, "' needs a port from 1 to 65535"));
    }
    if (!addresses.insert({party.host, party.port}).second) {
      return Broken(absl::StrCat("two parties listen on ", party.host, ":", party.port));
    }
  }
  return absl::OkStatus();
}

absl::Status ValidateOwners(const Owners& owners, size_t parties) {
  if (owners.size() > kMaxLayers) return Broken("placement has too many layers");
  for (const auto& row : owners) {
    if (row.empty() || row.size() > kMaxExperts) {
      return Broken(absl::StrCat("a layer of placement must have 1 to ", kMaxExperts, " experts"));
    }
    for (const uint32_t owner : row) {
      if (owner >= parties) {
        return Broken(absl::StrCat("placement names party ", owner, ", but there are ", parties,
                                   " parties, counted from 0"));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::string_view NameOf(Exchange exchange) {
  return exchange == Exchange::kRows ? "rows" : "weights";
}

std::string_view NameOf(Schedule schedule) {
  return schedule == Schedule::kSynchronous ? "synchronous" : "round_robin";
}

bool IsDnsLabel(std::string_view text) {
  return !text.empty() && text.size() <= 63 && text.front() != '-' && text.back() != '-' &&
         std::ranges::all_of(text, [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
         });
}

absl::Status Manifest::Validate() const {
  if (!IsDnsLabel(id)) {
    return Broken("federation.id must be 1 to 63 lower-case letters, digits and '-'");
  }
  if (name.size() > 200) return Broken("federation.name must have at most 200 bytes");
  PCMOE_RETURN_IF_ERROR(ValidateParties(parties));
  PCMOE_RETURN_IF_ERROR(ValidateOwners(owners, parties.size()));
  if (exchange == Exchange::kWeights && schedule == Schedule::kRoundRobin) {
    return Broken("schedule \"round_robin\" needs exchange \"rows\"");
  }
  if (max_steps == 0) return Broken("max_steps must be at least 1");
  if (limits.max_message_bytes < kMinMessageBytes || limits.max_message_bytes > kMaxMessageBytes) {
    return Broken("limits.max_message_bytes must be 4096 to 17179869184");
  }
  if (limits.max_rows == 0) return Broken("limits.max_rows must be at least 1");
  // gRPC 1.51 has no public way to demand more.
  if (limits.min_tls != "1.2") {
    return Broken("limits.min_tls must be \"1.2\"; 1.3 is used whenever both sides have it");
  }
  return absl::OkStatus();
}

base::Sha256 Manifest::Digest() const { return base::DigestOf(CanonicalJson()); }

std::string Manifest::IdentityOf(size_t party) const {
  return absl::StrCat(parties[party].name, ".", id, ".pcmoe");
}

absl::StatusOr<size_t> Manifest::IndexOf(std::string_view party_name) const {
  std::string names;
  for (size_t i = 0; i < parties.size(); ++i) {
    if (parties[i].name == party_name) return i;
    absl::StrAppend(&names, i == 0 ? "" : ", ", parties[i].name);
  }
  return absl::NotFoundError(absl::StrCat("the manifest has no party '", std::string(party_name),
                                          "'; its parties are ", names));
}

}  // namespace pcmoe::federation
