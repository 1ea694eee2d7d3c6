// pcmoe/cli/party_policy.cc: see party_policy.h.
#include "pcmoe/cli/party_policy.h"

#include <toml++/toml.h>

#include <sstream>

#include "absl/strings/str_split.h"
#include "pcmoe/base/edit_distance.h"
#include "pcmoe/base/file.h"

namespace pcmoe::cli {
namespace {

constexpr uint64_t kMaxPolicyBytes = 1 << 20;
using Releases = std::set<std::pair<wire::PartyIndex, wire::MessageKind>>;

std::vector<std::string> KindNames() {
  std::vector<std::string> names;
  for (uint8_t kind = wire::kFirstMessageKind; kind <= wire::kLastMessageKind; ++kind) {
    names.emplace_back(NameOf(static_cast<wire::MessageKind>(kind)));
  }
  return names;
}

// "; did you mean b?", if one of `known` is near.
std::string Suggestion(const std::string& word, const std::vector<std::string>& known) {
  const std::string bounded = word.substr(0, 100);
  for (const std::string& name : known) {
    if (base::EditDistance(bounded, name) <= 2) return absl::StrCat("; did you mean ", name, "?");
  }
  return "";
}

// Adds (receivers of `party`) x (kinds of `kind`), each a name or "*".
absl::Status Add(const std::string& party, const std::string& kind,
                 const std::vector<std::string>& names, Releases& releases) {
  if (party != "*" && std::find(names.begin(), names.end(), party) == names.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("there is no party \"", party, "\"", Suggestion(party, names)));
  }
  if (kind != "*" && !wire::KindFromName(kind)) {
    return absl::InvalidArgumentError(
        absl::StrCat("there is no kind of message \"", kind, "\"", Suggestion(kind, KindNames())));
  }
  for (size_t p = 0; p < names.size(); ++p) {
    if (party != "*" && party != names[p]) continue;
    for (uint8_t byte = wire::kFirstMessageKind; byte <= wire::kLastMessageKind; ++byte) {
      const auto each = static_cast<wire::MessageKind>(byte);
      if (kind == "*" || kind == NameOf(each)) {
        releases.emplace(static_cast<wire::PartyIndex>(p), each);
      }
    }
  }
  return absl::OkStatus();
}

absl::Status AddTable(const toml::table& table, const std::vector<std::string>& names,
                      Releases& releases) {
  for (const auto& [party, node] : table) {
    const toml::array* kinds = node.as_array();
    if (kinds == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat(std::string(party.str()), " must be a list of kinds of messages"));
    }
    for (const toml::node& kind : *kinds) {
      const auto text = kind.value_exact<std::string>();
      if (!text) {
        return absl::InvalidArgumentError(
            absl::StrCat(std::string(party.str()), " must be a list of strings"));
      }
      PCMOE_RETURN_IF_ERROR(Add(std::string(party.str()), *text, names, releases));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<toml::table> ParseToml(const std::string& text) {
  try {
    return toml::parse(text);
  } catch (const toml::parse_error& error) {  // toml++ reports by exception only
    std::ostringstream place;
    place << error.source().begin;
    return absl::InvalidArgumentError(
        absl::StrCat(std::string(error.description()), " (", place.str(), ")"));
  }
}

}  // namespace

absl::Status AddPolicyText(const std::string& text, const std::vector<std::string>& names,
                           border::Policy& policy) {
  PCMOE_ASSIGN_OR_RETURN(const toml::table root, ParseToml(text));
  for (const auto& [key, node] : root) {
    if ((key != "allow" && key != "forbid") || !node.is_table()) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", std::string(key.str()), "\" is none of the tables [allow] [forbid]",
                       Suggestion(std::string(key.str()), {"allow", "forbid"})));
    }
  }
  if (const toml::table* allow = root["allow"].as_table()) {
    Releases allowed;
    Releases all;
    PCMOE_RETURN_IF_ERROR(AddTable(*allow, names, allowed));
    PCMOE_RETURN_IF_ERROR(Add("*", "*", names, all));
    for (const auto& release : all) {
      if (!allowed.contains(release)) policy.forbidden.insert(release);
    }
  }
  const toml::table* forbid = root["forbid"].as_table();
  return forbid == nullptr ? absl::OkStatus() : AddTable(*forbid, names, policy.forbidden);
}

absl::StatusOr<border::Policy> PolicyOf(const train::RunConfig& config,
                                        const std::vector<std::string>& names) {
  border::Policy policy{.allow_readable_rows = config.allow_readable_rows};
  for (const std::string& entry : config.forbid) {
    const std::pair<std::string, std::string> parts =
        absl::StrSplit(entry, absl::MaxSplits(':', 1));
    PCMOE_RETURN_IF_ERROR(
        WithContext(Add(parts.first, parts.second, names, policy.forbidden), "[border] forbid"));
  }
  if (!config.policy.empty()) {
    PCMOE_ASSIGN_OR_RETURN(const std::string text, base::ReadFile(config.policy, kMaxPolicyBytes));
    PCMOE_RETURN_IF_ERROR(WithContext(AddPolicyText(text, names, policy), config.policy));
  }
  return policy;
}

}  // namespace pcmoe::cli
