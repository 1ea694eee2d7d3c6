// pcmoe/cli/sim_runs.cc: see sim_runs.h.
#include "pcmoe/cli/sim_runs.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "pcmoe/base/digest.h"
#include "pcmoe/base/file.h"
#include "pcmoe/base/random.h"
#include "pcmoe/cli/manifest_from.h"
#include "pcmoe/model/config.h"
#include "pcmoe/provision/identity.h"
#include "pcmoe/provision/provision.h"
#include "pcmoe/transport/free_ports.h"

namespace pcmoe::cli {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

// No party can be called so, since a name has no underscore.
constexpr char kComparisonFolder[] = "compared_with";

const std::vector<std::string> kOwnTables = {"model", "data", "training", "border", "run"};

std::vector<std::string> FilesOf(const std::vector<std::string>& patterns,
                                 const std::string& party) {
  std::vector<std::string> files;
  for (const std::string& pattern : patterns) {
    files.push_back(absl::StrReplaceAll(pattern, {{"{party}", party}}));
  }
  return files;
}

fs::path ModelFolder(const train::RunConfig& config) {
  const fs::path path = config.model_name_or_path;
  return fs::is_directory(path) ? path : path.parent_path();
}

// Writes FOLDER/party.toml; the process's log and output are beside it.
absl::StatusOr<SimProcess> WriteProcess(const fs::path& folder, const std::string& name,
                                        train::RunConfig config, bool with_shared) {
  PCMOE_RETURN_IF_ERROR(base::CreateFolder(folder, 0700));
  config.output_dir = (folder / "out").string();
  if (!config.export_dir.empty()) config.export_dir = (folder / "export").string();
  SimProcess process{.name = name, .output_dir = config.output_dir};
  process.child = {.name = name,
                   .config = folder / "party.toml",
                   .log = folder / "log",
                   .num_threads = config.num_threads};
  const std::string text =
      absl::StrCat("# Written by pcmoe sim.\n", train::ToToml(config, kOwnTables, with_shared));
  PCMOE_RETURN_IF_ERROR(base::WriteFileAtomically(process.child.config, text, 0600));
  return process;
}

// A run without a federation: same seed, tokens and steps.
train::RunConfig WithoutFederation(const SimPlan& plan, train::RunConfig config) {
  config.identity = "none";
  config.listen.clear();
  config.private_lr_scale = 1;  // nobody trains anything under it
  config.expert_lr_scale = 1;
  config.record_received.clear();  // nothing is received, and nobody to attack
  config.record_truth.clear();
  if (config.schedule == "round_robin") {
    const auto n = static_cast<int64_t>(plan.parties.size());
    for (int64_t* steps : {&config.max_steps, &config.save_steps, &config.eval_steps}) {
      if (*steps > 0) *steps = std::max<int64_t>(1, *steps / n);
    }
    config.warmup_steps /= n;
  }
  return config;
}

absl::StatusOr<SimRun> PrepareCentral(const SimPlan& plan, const fs::path& folder) {
  train::RunConfig config = WithoutFederation(plan, ConfigOf(plan, plan.parties[0]));
  config.train.clear();
  config.eval.clear();
  std::set<std::string> seen;  // a file that all parties evaluate is evaluated once
  for (const std::string& party : plan.parties) {
    for (const std::string& file : FilesOf(plan.config.train, party)) config.train.push_back(file);
    for (const std::string& file : FilesOf(plan.config.eval, party)) {
      if (seen.insert(file).second) config.eval.push_back(file);
    }
  }
  const auto cores = std::max<int64_t>(1, std::thread::hardware_concurrency());
  config.num_threads =
      std::min(config.num_threads * static_cast<int64_t>(plan.parties.size()), cores);
  PCMOE_ASSIGN_OR_RETURN(SimProcess process, WriteProcess(folder, "all", config, true));
  process.evaluates = plan.parties;
  return SimRun{"central", {std::move(process)}, config.max_steps};
}

// The folder of a model with a party's share of the experts.
absl::StatusOr<std::string> WriteModelThatFits(const SimPlan& plan, const fs::path& folder) {
  const fs::path base = plan.config.model_name_or_path;
  const fs::path path = fs::is_directory(base) ? base / "config.json" : base;
  // A checkpoint is one only where a folder is named: a config.json stands for a random start.
  if (fs::exists(base / "model.safetensors") || fs::exists(base / "model.safetensors.index.json")) {
    return absl::FailedPreconditionError(
        "--compare alone_fits starts from a config.json only: a checkpoint's experts cannot be "
        "left out");
  }
  PCMOE_ASSIGN_OR_RETURN(const model::ModelConfig config, model::LoadConfig(path));
  PCMOE_ASSIGN_OR_RETURN(const std::string json, base::ReadFile(path, 1 << 20));
  const auto n = static_cast<int64_t>(plan.parties.size());
  PCMOE_ASSIGN_OR_RETURN(
      const std::string smaller,
      WithExperts(json, std::max<int64_t>(1, config.num_experts / n), config.experts_per_token));
  PCMOE_RETURN_IF_ERROR(base::CreateFolder(folder, 0700));
  PCMOE_RETURN_IF_ERROR(base::WriteFileAtomically(folder / "config.json", smaller));
  return (folder / "config.json").string();
}

absl::StatusOr<SimRun> PrepareAlone(const SimPlan& plan, const std::string& name,
                                    const fs::path& folder) {
  std::string smaller_model;
  if (name == "alone_fits") {
    PCMOE_ASSIGN_OR_RETURN(smaller_model, WriteModelThatFits(plan, folder / "model_that_fits"));
  }
  SimRun run{.name = name};
  for (size_t p = 0; p < plan.parties.size(); ++p) {
    train::RunConfig config = WithoutFederation(plan, ConfigOf(plan, plan.parties[p]));
    config.data_stream = static_cast<int64_t>(p);  // the order that its data has in the federation
    if (!smaller_model.empty()) {
      if (config.tokenizer.empty()) {
        config.tokenizer = (ModelFolder(config) / "tokenizer.json").string();
      }
      config.model_name_or_path = smaller_model;
    }
    if (config.train.empty()) continue;  // nothing to train on by itself
    PCMOE_ASSIGN_OR_RETURN(SimProcess process,
                           WriteProcess(folder / plan.parties[p], plan.parties[p], config, true));
    process.evaluates = {plan.parties[p]};
    run.processes.push_back(std::move(process));
    run.steps = config.max_steps;
  }
  return run;
}

absl::StatusOr<SimRun> PrepareFederationIn(const SimPlan& plan, const std::string& name,
                                           const fs::path& out) {
  PCMOE_ASSIGN_OR_RETURN(
      const std::vector<uint16_t> ports,
      transport::FreePorts(static_cast<int>(plan.parties.size()), plan.first_port));
  std::vector<federation::PartyEntry> entries;
  for (size_t p = 0; p < plan.parties.size(); ++p) {
    entries.push_back({plan.parties[p], "127.0.0.1", ports[p]});
  }
  PCMOE_ASSIGN_OR_RETURN(federation::Manifest manifest,
                         ManifestFrom(plan.config, std::move(entries)));
  PCMOE_RETURN_IF_ERROR(provision::Provision({.out = out}, std::move(manifest)).status());
  SimRun run{.name = name, .steps = plan.config.max_steps};
  const auto seed = static_cast<uint64_t>(plan.config.seed);
  for (const std::string& party : plan.parties) {
    const fs::path folder = out / party;
    // The order of a party's rows in its messages decides the order in which owners sum gradients.
    // In a real federation it must be secret; here it must be the same in every run with the same
    // seed.
    base::Sha256 key{};
    for (size_t i = 0; i < key.size(); i += 8) {
      uint64_t word = base::SeedOf(seed, absl::StrCat("sim/shuffle/", party, "/", i));
      for (size_t j = 0; j < 8; ++j, word >>= 8) key[i + j] = static_cast<uint8_t>(word);
    }
    PCMOE_RETURN_IF_ERROR(base::WriteFileAtomically(folder / provision::kShuffleKeyFile,
                                                    base::ToHex(key) + "\n", 0600));
    train::RunConfig config = ConfigOf(plan, party);
    config.identity = folder.string();
    if (config.listen.empty()) config.listen = "127.0.0.1";  // nobody outside has business here
    PCMOE_ASSIGN_OR_RETURN(SimProcess process, WriteProcess(folder, party, config, false));
    process.evaluates = {party};
    run.processes.push_back(std::move(process));
  }
  return run;
}

// A federation of other settings: everything aggregated, a private backbone, or the paper's rows.
absl::StatusOr<SimRun> PrepareOtherFederation(const SimPlan& plan, const std::string& name,
                                              const fs::path& folder) {
  SimPlan other = plan;
  train::RunConfig& config = other.config;
  config.exchange = name == "rows" ? "rows" : "weights";
  config.backbone = config.embedding = config.head =
      name == "aggregated" ? "aggregated" : "private";
  if (name == "rows" && !config.allow_readable_rows) {
    return absl::FailedPreconditionError(
        "--compare rows lets the owners of experts read token rows; set [border] "
        "allow_readable_rows = true if that is meant");
  }
  return PrepareFederationIn(other, name, folder);
}

}  // namespace

absl::StatusOr<std::string> DescribeFederation(const train::RunConfig& config) {
  train::RunConfig resolved = config;
  const fs::path base = config.model_name_or_path;
  PCMOE_ASSIGN_OR_RETURN(const model::ModelConfig model, model::LoadConfig(base));
  const bool weights =
      fs::is_directory(base) &&
      (fs::exists(base / "model.safetensors") || fs::exists(base / "model.safetensors.index.json"));
  PCMOE_RETURN_IF_ERROR(
      train::ResolveBackbone(weights, model.tie_word_embeddings, model.hidden_size, resolved));
  return absl::StrCat("exchange ", resolved.exchange, ", backbone ", resolved.backbone,
                      ", embedding ", resolved.embedding, ", head ", resolved.head);
}

const std::vector<std::string>& ComparisonNames() {
  static const std::vector<std::string> names = {"central", "aggregated", "weights_private",
                                                 "rows",    "alone",      "alone_fits"};
  return names;
}

train::RunConfig ConfigOf(const SimPlan& plan, const std::string& party) {
  train::RunConfig config = plan.config;
  for (std::string* asked : {&config.record_received, &config.record_truth}) {
    const std::vector<std::string> names = absl::StrSplit(*asked, ',');
    *asked = std::find(names.begin(), names.end(), party) == names.end() ? "" : party;
  }
  config.train = FilesOf(plan.config.train, party);
  config.eval = FilesOf(plan.config.eval, party);
  return config;
}

absl::StatusOr<SimRun> PrepareFederation(const SimPlan& plan) {
  return PrepareFederationIn(plan, "federated", plan.out);
}

absl::StatusOr<SimRun> PrepareComparison(const SimPlan& plan, const std::string& name) {
  const fs::path folder = plan.out / kComparisonFolder / name;
  if (name == "central") return PrepareCentral(plan, folder);
  if (name == "alone" || name == "alone_fits") return PrepareAlone(plan, name, folder);
  if (name == "aggregated" || name == "weights_private" || name == "rows") {
    return PrepareOtherFederation(plan, name, folder);
  }
  return absl::InvalidArgumentError(absl::StrCat("--compare ", name, ": the comparisons are ",
                                                 absl::StrJoin(ComparisonNames(), ", ")));
}

absl::StatusOr<std::string> WithExperts(const std::string& text, int64_t num_experts,
                                        int64_t experts_per_token) {
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  bool found = false;
  for (const char* key : {"num_experts", "num_local_experts"}) {  // as the families spell it
    if (!json.is_object() || !json.contains(key)) continue;
    json[key] = num_experts;
    found = true;
  }
  if (!found) {
    return absl::InvalidArgumentError(
        "the model's config.json names no num_experts, so its share of them is unknown");
  }
  json["num_experts_per_tok"] = std::min(experts_per_token, num_experts);
  return json.dump(2) + "\n";
}

}  // namespace pcmoe::cli
