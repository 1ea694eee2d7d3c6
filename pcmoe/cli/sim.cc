// pcmoe/cli/sim.cc: `pcmoe sim`: a whole federation on this machine, and what it is compared with.
#include <algorithm>
#include <atomic>
#include <csignal>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "pcmoe/base/file.h"
#include "pcmoe/cli/about.h"
#include "pcmoe/cli/commands.h"
#include "pcmoe/cli/report.h"
#include "pcmoe/cli/sim_compare.h"
#include "pcmoe/cli/sim_process.h"
#include "pcmoe/cli/sim_progress.h"
#include "pcmoe/cli/sim_runs.h"

namespace pcmoe::cli {
namespace {

namespace fs = std::filesystem;

constexpr char kMarkerFile[] = "made-by-pcmoe-sim";
constexpr int kMaxParties = 64;

std::atomic<bool> g_interrupted{false};
void OnSignal(int) { g_interrupted.store(true); }

struct Flags {
  int n = 4;
  std::string config, out, parties, compare;
  std::vector<std::string> set;
  int first_port = 0;
  double stall_timeout_s = 1200;
  bool json = false, replace = false, export_models = false;
};

// a, b, .. z, then p27, p28, ..
absl::StatusOr<std::vector<std::string>> PartyNames(const Flags& flags) {
  std::vector<std::string> names;
  if (!flags.parties.empty()) {
    names = absl::StrSplit(flags.parties, ',');
    if (static_cast<int>(names.size()) != flags.n) {
      return absl::InvalidArgumentError(
          absl::StrCat("--parties names ", names.size(), " parties, but -n says ", flags.n));
    }
    return names;
  }
  for (int i = 0; i < flags.n; ++i) {
    names.push_back(i < 26 ? std::string(1, static_cast<char>('a' + i)) : absl::StrCat("p", i + 1));
  }
  return names;
}

absl::StatusOr<std::vector<std::string>> Comparisons(const Flags& flags) {
  std::vector<std::string> names;
  if (flags.compare.empty()) return names;
  const auto& known = ComparisonNames();
  for (const std::string& name : std::vector<std::string>(absl::StrSplit(flags.compare, ','))) {
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--compare ", name, ": the comparisons are ", absl::StrJoin(known, ", ")));
    }
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  }
  return names;
}

// A folder of our own and nothing of anybody else's: `out` must be new, empty, or made by a sim and
// given up by --replace.
absl::Status PrepareOut(const fs::path& out, bool replace) {
  std::error_code error;
  if (fs::exists(out, error) && !fs::is_empty(out, error)) {
    if (!fs::exists(out / kMarkerFile, error)) {
      return absl::AlreadyExistsError(absl::StrCat(
          out.string(), ": is not empty and was not made by pcmoe sim; choose another --out"));
    }
    if (!replace) {
      return absl::AlreadyExistsError(absl::StrCat(
          out.string(),
          ": holds an earlier sim; choose another --out, or add --replace to remove it"));
    }
    fs::remove_all(out, error);
    if (error) {
      return absl::FailedPreconditionError(
          absl::StrCat(out.string(), ": cannot be removed: ", error.message()));
    }
  }
  PCMOE_RETURN_IF_ERROR(base::CreateFolder(out, 0700));
  return base::WriteFileAtomically(out / kMarkerFile,
                                   "pcmoe sim --replace may remove this folder\n");
}

absl::StatusOr<SimOutcome> RunAndRead(const SimPlan& plan, const SimRun& run,
                                      absl::Duration stall) {
  std::vector<std::string> names;
  std::vector<fs::path> metrics;
  for (const SimProcess& process : run.processes) {
    names.push_back(process.name);
    metrics.push_back(process.output_dir / "metrics.jsonl");
  }
  const absl::Time begin = absl::Now();
  {
    SimProgress progress(run.name, names, metrics, run.steps);
    Children children;
    for (const SimProcess& process : run.processes) {
      PCMOE_RETURN_IF_ERROR(children.Start(process.child));
    }
    PCMOE_RETURN_IF_ERROR(WithContext(children.Run([&progress] { return progress.Tick(); },
                                                   [] { return g_interrupted.load(); }, stall),
                                      run.name));
  }
  PCMOE_ASSIGN_OR_RETURN(SimOutcome outcome, ReadOutcome(plan, run));
  outcome.wall_s = absl::ToDoubleSeconds(absl::Now() - begin);
  return outcome;
}

nlohmann::ordered_json AboutSim(const SimPlan& plan, const std::string& settings) {
  nlohmann::ordered_json about = AboutThisProcess();
  about["description"] = absl::StrCat("Federated: ", settings, ".");
  about["settings"] = SettingsOf(plan.config);
  return about;
}

absl::Status Run(const Flags& flags) {
  std::signal(SIGINT, OnSignal);
  std::signal(SIGTERM, OnSignal);
  std::signal(SIGHUP, OnSignal);
  SimPlan plan;
  PCMOE_ASSIGN_OR_RETURN(plan.config, train::LoadRunConfig(flags.config, flags.set));
  PCMOE_ASSIGN_OR_RETURN(plan.parties, PartyNames(flags));
  PCMOE_ASSIGN_OR_RETURN(const std::vector<std::string> comparisons, Comparisons(flags));
  plan.out = fs::absolute(flags.out).lexically_normal();
  plan.first_port = static_cast<uint16_t>(flags.first_port);
  if (flags.export_models) plan.config.export_dir = "export";
  PCMOE_RETURN_IF_ERROR(plan.config.Validate());
  PCMOE_RETURN_IF_ERROR(PrepareOut(plan.out, flags.replace));
  // All folders first, so that a config that cannot be compared fails before an hour of training.
  PCMOE_ASSIGN_OR_RETURN(const SimRun federation, PrepareFederation(plan));
  std::vector<SimRun> runs = {federation};
  for (const std::string& name : comparisons) {
    PCMOE_ASSIGN_OR_RETURN(SimRun run, PrepareComparison(plan, name));
    runs.push_back(std::move(run));
  }
  PCMOE_ASSIGN_OR_RETURN(const std::string settings, DescribeFederation(plan.config));
  WriteAbout(AboutSim(plan, settings), plan.out);
  std::vector<SimOutcome> outcomes;
  for (const SimRun& run : runs) {
    PCMOE_ASSIGN_OR_RETURN(SimOutcome outcome,
                           RunAndRead(plan, run, absl::Seconds(flags.stall_timeout_s)));
    outcomes.push_back(std::move(outcome));
  }
  const nlohmann::ordered_json json = JsonOf(outcomes, plan.parties);
  PCMOE_RETURN_IF_ERROR(base::WriteFileAtomically(plan.out / "result.json", json.dump(2) + "\n"));
  WriteReportOrWarn(plan.out);
  if (flags.json) {
    std::cout << json.dump() << "\n";
    return absl::OkStatus();
  }
  std::cout << "federated: " << settings << "\n" << TableOf(outcomes, plan.parties);
  for (const std::string& verdict : VerdictsOf(outcomes)) std::cout << verdict << "\n";
  return absl::OkStatus();
}

}  // namespace

void AddSim(CLI::App& app, absl::Status& result) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* sim = app.add_subcommand(
      "sim", "Run a whole federation on this machine: real processes, certificates and ports");
  sim->add_option("-n", flags->n, "Parties")->check(CLI::Range(1, kMaxParties));
  sim->add_option("--config", flags->config,
                  "TOML file as for provision; \"{party}\" in [data] stands for a party's name")
      ->required();
  sim->add_option("--out", flags->out, "New folder for all that the run leaves")->required();
  sim->add_option("--parties", flags->parties, "Names, separated by commas (a,b,c,..)");
  sim->add_option("--first-port", flags->first_port, "Ports from here up; without it, free ones")
      ->check(CLI::Range(1024, 65000));
  sim->add_option("--compare", flags->compare,
                  "Also train any of central,aggregated,weights_private,rows,alone,alone_fits");
  sim->add_option("--set", flags->set, "Override a key: --set table.key=value (repeatable)");
  sim->add_option("--stall-timeout", flags->stall_timeout_s,
                  "Seconds without news that end the run")
      ->check(CLI::Range(1.0, 1e6));
  sim->add_flag("--export", flags->export_models,
                "Every process writes its whole model to the folder export beside its config");
  sim->add_flag("--json", flags->json, "One JSON object on stdout");
  sim->add_flag("--replace", flags->replace, "Remove an earlier sim in --out first");
  sim->callback([flags, &result] { result = Run(*flags); });
}

}  // namespace pcmoe::cli
