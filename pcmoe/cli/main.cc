// pcmoe/cli/main.cc: the program pcmoe: parses the command line, prints one sentence when it fails.
#include <iostream>

#include "pcmoe/cli/commands.h"

int main(int argc, char** argv) {
  CLI::App app("pcmoe: several organisations train one Mixture-of-Experts model together");
  app.require_subcommand(1);
  app.set_version_flag("--version", "pcmoe " PCMOE_VERSION);
  absl::Status result;
  pcmoe::cli::AddTrain(app, result);
  pcmoe::cli::AddProvision(app, result);
  pcmoe::cli::AddExport(app, result);
  pcmoe::cli::AddLedger(app, result);
  pcmoe::cli::AddPlan(app, result);
  pcmoe::cli::AddSim(app, result);
  pcmoe::cli::AddEval(app, result);
  pcmoe::cli::AddData(app, result);
  pcmoe::cli::AddAudit(app, result);
  pcmoe::cli::AddReport(app, result);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {  // CLI11 reports by exception, --help included
    const int code = app.exit(error, std::cout, std::cerr);
    return code == 0 ? 0 : static_cast<int>(pcmoe::ExitCode::kBadInput);
  }
  if (!result.ok()) {
    std::cerr << "pcmoe: " << result.message() << "\n";
  }
  return static_cast<int>(pcmoe::ExitCodeOf(result));
}
