// pcmoe/cli/export.cc: `pcmoe export`: the whole model of a run that is over, as one Hugging Face
// folder.
#include <array>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "pcmoe/cli/commands.h"
#include "pcmoe/cli/party_run.h"

namespace pcmoe::cli {
namespace {

struct Flags {
  std::string config, out, logits;
  std::string max_shard_size = "5GB";
  std::vector<std::string> set;
  int64_t step = 0;
  bool replace = false;
};

// transformers' spelling: "5GB", "500MB", "5GiB"; a number alone is bytes.
absl::StatusOr<uint64_t> BytesOf(const std::string& text) {
  constexpr std::array<std::pair<std::string_view, double>, 6> kUnits = {{{"GIB", 1073741824.0},
                                                                          {"MIB", 1048576.0},
                                                                          {"KIB", 1024.0},
                                                                          {"GB", 1e9},
                                                                          {"MB", 1e6},
                                                                          {"KB", 1e3}}};
  std::string number = absl::AsciiStrToUpper(text);
  double unit = 1;
  for (const auto& [name, bytes] : kUnits) {
    if (!number.ends_with(name)) continue;
    number.resize(number.size() - name.size());
    unit = bytes;
    break;
  }
  double value = 0;
  if (!absl::SimpleAtod(number, &value) || !(value * unit >= 1 && value * unit < 1e18)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--max-shard-size ", text, ": write it like 5GB, 500MB or 5GiB"));
  }
  return static_cast<uint64_t>(value * unit);
}

absl::Status Run(const Flags& flags) {
  train::ExportRequest request{
      .out = flags.out, .replace = flags.replace, .logits_file = flags.logits};
  if (flags.step > 0) request.step = flags.step;
  PCMOE_ASSIGN_OR_RETURN(request.max_shard_bytes, BytesOf(flags.max_shard_size));
  return ExportParty(flags.config, flags.set, request);
}

}  // namespace

void AddExport(CLI::App& app, absl::Status& result) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand(
      "export", "Write the whole model as one Hugging Face folder; every party runs it");
  command->add_option("--config", flags->config, "The party's TOML file")->required();
  command->add_option("--out", flags->out, "New folder for the model")->required();
  command
      ->add_option("--step", flags->step,
                   "Of which checkpoint, the same at every party; without it the newest one")
      ->check(CLI::PositiveNumber);
  command->add_option("--max-shard-size", flags->max_shard_size,
                      "Most bytes of weights in a file (5GB)");
  command->add_option("--logits", flags->logits,
                      "Also write tokens and logits of the comparison, a safetensors file");
  command->add_option("--set", flags->set, "Override a key: --set table.key=value (repeatable)");
  command->add_flag("--replace", flags->replace, "Replace an earlier export in --out");
  command->callback([flags, &result] { result = Run(*flags); });
}

}  // namespace pcmoe::cli
