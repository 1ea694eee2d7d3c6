// pcmoe/cli/train.cc: `pcmoe train`: runs one party until the run ends.
#include <memory>
#include <vector>

#include "pcmoe/cli/commands.h"
#include "pcmoe/cli/party_run.h"

namespace pcmoe::cli {

void AddTrain(CLI::App& app, absl::Status& result) {
  struct Flags {
    std::string config;
    std::vector<std::string> set;
    bool quiet = false;
  };
  const auto flags = std::make_shared<Flags>();
  CLI::App* train = app.add_subcommand("train", "Run this party until the run ends");
  train->add_option("--config", flags->config, "The party's TOML file")->required();
  train->add_option("--set", flags->set, "Override a key: --set table.key=value (repeatable)");
  train->add_flag("--quiet", flags->quiet, "No line for every step");
  train->callback(
      [flags, &result] { result = RunParty(flags->config, flags->set, !flags->quiet); });
}

}  // namespace pcmoe::cli
