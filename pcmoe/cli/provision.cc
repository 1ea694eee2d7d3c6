// pcmoe/cli/provision.cc: `pcmoe provision`: keys, certificates and the signed manifest of a
// federation.
#include "pcmoe/provision/provision.h"

#include <iostream>
#include <memory>

#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "pcmoe/base/file.h"
#include "pcmoe/cli/commands.h"
#include "pcmoe/cli/manifest_from.h"

namespace pcmoe::cli {
namespace {

struct Flags {
  std::string config, parties, out;
  std::vector<std::string> addresses;
  int first_port = 7600;
  bool force = false;
};

// "a,b" with "b=host:port" addresses; others are on this machine, on ports from first_port up.
absl::StatusOr<std::vector<federation::PartyEntry>> PartiesFrom(const Flags& flags) {
  std::vector<federation::PartyEntry> parties;
  for (const std::string& name : std::vector<std::string>(absl::StrSplit(flags.parties, ','))) {
    const auto port = static_cast<uint16_t>(flags.first_port + static_cast<int>(parties.size()));
    parties.push_back({name, "127.0.0.1", port});
  }
  for (const std::string& text : flags.addresses) {
    const size_t equals = text.find('=');
    const size_t colon = text.rfind(':');
    uint32_t port = 0;
    const bool readable = equals != std::string::npos && colon != std::string::npos &&
                          equals < colon && absl::SimpleAtoi(text.substr(colon + 1), &port) &&
                          port > 0 && port < 65536;
    const auto party = std::find_if(parties.begin(), parties.end(), [&](const auto& entry) {
      return entry.name == text.substr(0, equals);
    });
    if (!readable || party == parties.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--address ", text, ": write it as --address PARTY=HOST:PORT"));
    }
    party->host = text.substr(equals + 1, colon - equals - 1);
    party->port = static_cast<uint16_t>(port);
  }
  return parties;
}

absl::Status WritePartyConfig(const std::filesystem::path& folder, train::RunConfig config) {
  const std::filesystem::path path = folder / "party.toml";
  if (std::filesystem::exists(path)) return absl::OkStatus();  // the party's own edits
  config.identity = ".";
  config.output_dir = "out";
  const std::string text = absl::StrCat(
      "# This party's own settings; what all parties share is in the signed manifest.json.\n"
      "# Set [data] train to this party's files. `pcmoe train --config party.toml` starts it.\n",
      train::ToToml(config, {"model", "data", "training", "border", "run"}));
  return base::WriteFileAtomically(path, text, 0600);
}

absl::Status Run(const Flags& flags) {
  PCMOE_ASSIGN_OR_RETURN(const train::RunConfig config, train::LoadRunConfig(flags.config, {}));
  PCMOE_ASSIGN_OR_RETURN(std::vector<federation::PartyEntry> parties, PartiesFrom(flags));
  PCMOE_ASSIGN_OR_RETURN(federation::Manifest manifest, ManifestFrom(config, std::move(parties)));
  PCMOE_ASSIGN_OR_RETURN(
      const provision::ProvisionReport report,
      provision::Provision({.out = flags.out, .force = flags.force}, std::move(manifest)));
  for (const federation::PartyEntry& party : report.manifest.parties) {
    PCMOE_RETURN_IF_ERROR(WritePartyConfig(std::filesystem::path(flags.out) / party.name, config));
  }
  std::cout << "federation " << report.manifest.id << ", manifest "
            << base::ToHex(report.manifest.Digest()) << "\n"
            << "new certificates: "
            << (report.issued.empty() ? "none" : absl::StrJoin(report.issued, ", "))
            << "; kept: " << (report.kept.empty() ? "none" : absl::StrJoin(report.kept, ", "))
            << "\nCarry each folder " << flags.out << "/PARTY to its party safely; keep "
            << flags.out << "/ca offline.\n";
  return absl::OkStatus();
}

}  // namespace

void AddProvision(CLI::App& app, absl::Status& result) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* provision = app.add_subcommand(
      "provision", "Make keys, certificates and the signed manifest of a federation");
  provision
      ->add_option("--config", flags->config, "TOML file with [model], [training], [federation]")
      ->required();
  provision->add_option("--parties", flags->parties, "Names, separated by commas")->required();
  provision->add_option("--out", flags->out, "Folder to write; run again, it keeps good keys")
      ->required();
  provision->add_option("--address", flags->addresses, "PARTY=HOST:PORT (repeatable)");
  provision
      ->add_option("--first-port", flags->first_port,
                   "Without --address: 127.0.0.1 and ports from here up")
      ->check(CLI::Range(1024, 65000));
  provision->add_flag("--force", flags->force, "New authority, keys and certificates");
  provision->callback([flags, &result] { result = Run(*flags); });
}

}  // namespace pcmoe::cli
