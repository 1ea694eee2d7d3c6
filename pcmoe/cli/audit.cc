// pcmoe/cli/audit.cc: `pcmoe audit`: attacks a recorded run and says what it reveals, and to whom.
#include "pcmoe/audit/audit.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include <filesystem>
#include <iostream>
#include <memory>
#include <thread>

#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "pcmoe/base/file.h"
#include "pcmoe/base/log.h"
#include "pcmoe/cli/audit_final.h"
#include "pcmoe/cli/backbone_modes.h"
#include "pcmoe/cli/commands.h"
#include "pcmoe/exchange/weights/stage_units.h"
#include "pcmoe/federation/manifest.h"
#include "pcmoe/provision/identity.h"
#include "pcmoe/train/run_config.h"
#include "pcmoe/transport/recording_channel.h"

namespace pcmoe::cli {
namespace {

namespace fs = std::filesystem;

struct Flags {
  std::string run, coalition, shadow, base, html;
  std::vector<std::string> fail_above;
  double minutes = 10;
  int64_t threads = 0;
  bool json = false;
};

// What the run's folder says about itself, read through the first member of the coalition.
struct RunFolder {
  federation::Manifest manifest;
  std::vector<std::string> names;
  std::vector<int> coalition;
  train::RunConfig config;
  int64_t sequence_length = 0;
};

fs::path OutputOf(const Flags& flags, const std::string& party) {
  return fs::path(flags.run) / party / "out";
}

absl::StatusOr<RunFolder> ReadRun(const Flags& flags) {
  RunFolder run;
  const std::vector<std::string> wanted = absl::StrSplit(flags.coalition, ',');
  const fs::path first = fs::path(flags.run) / wanted[0];
  if (!fs::exists(first / provision::kManifestFile)) {
    return absl::NotFoundError(
        absl::StrCat(first.string(),
                     ": is no party's folder; --run takes the --out of a pcmoe sim "
                     "or provision, --coalition names of its parties"));
  }
  PCMOE_ASSIGN_OR_RETURN(const std::string json,
                         base::ReadFile(first / provision::kManifestFile, 16 << 20));
  PCMOE_ASSIGN_OR_RETURN(run.manifest, federation::ParseManifest(json));
  for (const auto& party : run.manifest.parties) run.names.push_back(party.name);
  for (const std::string& name : wanted) {
    const auto found = std::find(run.names.begin(), run.names.end(), name);
    if (found == run.names.end()) {
      return absl::InvalidArgumentError(absl::StrCat("--coalition: there is no party \"", name,
                                                     "\"; the parties are ",
                                                     absl::StrJoin(run.names, ", ")));
    }
    run.coalition.push_back(static_cast<int>(found - run.names.begin()));
  }
  PCMOE_ASSIGN_OR_RETURN(run.config, train::LoadRunConfig(first / "party.toml", {}));
  PCMOE_RETURN_IF_ERROR(train::ApplySharedTraining(run.manifest.training, {}, run.config));
  return run;
}

absl::StatusOr<text::Tokenizer> ReadTokenizer(const RunFolder& run) {
  const fs::path model = run.config.model_name_or_path;
  const fs::path folder = fs::is_directory(model) ? model : model.parent_path();
  return text::Tokenizer::Load(run.config.tokenizer.empty() ? folder / "tokenizer.json"
                                                            : fs::path(run.config.tokenizer));
}

absl::StatusOr<std::vector<data::Sequence>> ReadShadow(const Flags& flags, const RunFolder& run,
                                                       const text::Tokenizer& tokenizer) {
  return data::LoadSequences({flags.shadow}, tokenizer,
                             {.sequence_length = static_cast<int32_t>(run.config.sequence_length),
                              .eos_id = tokenizer.EosId().value_or(-1),
                              .last = data::LastSequence::kDrop});
}

// How the units of the coalition's members are laid out in their messages.
absl::StatusOr<std::map<int, audit::UnitLayout>> LayoutsOf(RunFolder run,
                                                           const model::ModelConfig& model) {
  PCMOE_RETURN_IF_ERROR(train::ResolveBackbone(run.manifest.checkpoint_sha256.has_value(),
                                               model.tie_word_embeddings, model.hidden_size,
                                               run.config));
  const auto sparse =
      static_cast<size_t>(std::count(model.sparse_layers.begin(), model.sparse_layers.end(), true));
  PCMOE_ASSIGN_OR_RETURN(
      const federation::Placement placement,
      federation::Placement::Create(run.manifest.owners, sparse,
                                    static_cast<size_t>(model.num_experts), run.names.size()));
  const exchange::ExpertMap map(model, placement);
  const exchange::BackboneOwners owners(model, map, BackboneModesOf(run.config));
  const exchange::StageUnits units(model, map, owners, at::kFloat, /*int8=*/false);
  std::map<int, audit::UnitLayout> layouts;
  for (const int party : run.coalition) {
    audit::UnitLayout& layout = layouts[party];
    for (int stage = 0; stage < units.stages(); ++stage) {
      auto& tensors = layout.emplace_back();
      for (const exchange::UnitTensor& unit : units.Of(stage, party).tensors) {
        tensors.push_back({.expert = unit.expert,
                           .entry = unit.entry,
                           .shape = unit.shape,
                           .first_group = unit.first_group,
                           .parts = unit.parts});
      }
    }
  }
  return layouts;
}

absl::StatusOr<audit::Truths> ReadTruths(const Flags& flags, const RunFolder& run) {
  audit::Truths truths;
  for (size_t p = 0; p < run.names.size(); ++p) {
    const auto party = static_cast<int>(p);
    if (std::find(run.coalition.begin(), run.coalition.end(), party) != run.coalition.end()) {
      continue;
    }
    const fs::path file = OutputOf(flags, run.names[p]) / "truth" / audit::kTruthFile;
    if (!fs::exists(file)) continue;
    PCMOE_ASSIGN_OR_RETURN(audit::Truth truth, audit::Truth::Load(file));
    truths.emplace(party, std::move(truth));
  }
  return truths;
}

// "id=0.3" or a number for every attack on tokens and labels.
absl::Status CheckBars(const Flags& flags, const audit::Report& report) {
  for (const std::string& bar : flags.fail_above) {
    const std::pair<std::string, std::string> parts =
        absl::StrContains(bar, '=')
            ? std::pair<std::string, std::string>(absl::StrSplit(bar, absl::MaxSplits('=', 1)))
            : std::pair<std::string, std::string>("", bar);
    double limit = 0;
    if (!absl::SimpleAtod(parts.second, &limit)) {
      return absl::InvalidArgumentError(
          absl::StrCat("--fail-above ", bar, ": write a number, or ATTACK=NUMBER"));
    }
    bool known = parts.first.empty();
    for (const audit::Finding& finding : report.findings) {
      const bool counts = parts.first.empty() ? finding.target == audit::Target::kTokens ||
                                                    finding.target == audit::Target::kLabels
                                              : finding.id == parts.first;
      known = known || counts;
      if (!counts || finding.estimate.value <= limit) continue;
      return absl::AbortedError(absl::StrCat("the attack ", finding.id, " got ",
                                             finding.estimate.value, ", above the bar of ", limit));
    }
    if (!known) {
      return absl::InvalidArgumentError(
          absl::StrCat("--fail-above ", bar, ": no attack of that name ran"));
    }
  }
  return absl::OkStatus();
}

absl::Status Run(const Flags& flags) {
  at::set_num_threads(static_cast<int>(
      flags.threads > 0 ? flags.threads : std::max(1U, std::thread::hardware_concurrency())));
  at::globalContext().setFlushDenormal(true);
  PCMOE_ASSIGN_OR_RETURN(const RunFolder run, ReadRun(flags));
  const std::string base_folder = flags.base.empty() ? run.config.model_name_or_path : flags.base;
  auto base = audit::BaseModel::Load(base_folder);
  if (!base.ok()) {
    return WithContext(base.status(), "the attacker's base model (--base takes a checkpoint)");
  }
  PCMOE_ASSIGN_OR_RETURN(const text::Tokenizer tokenizer, ReadTokenizer(run));
  PCMOE_ASSIGN_OR_RETURN(const std::vector<data::Sequence> shadow,
                         ReadShadow(flags, run, tokenizer));
  PCMOE_ASSIGN_OR_RETURN(const audit::Truths truths, ReadTruths(flags, run));
  std::vector<audit::Recording> recordings;
  for (const int party : run.coalition) {
    const fs::path file = OutputOf(flags, run.names[static_cast<size_t>(party)]) / "received" /
                          transport::kRecordingFile;
    PCMOE_ASSIGN_OR_RETURN(audit::Recording recording, audit::Recording::Open(file));
    recordings.push_back(std::move(recording));
  }
  std::vector<audit::Member> members;
  for (size_t i = 0; i < recordings.size(); ++i) {
    members.push_back({.party = run.coalition[i], .recording = &recordings[i]});
  }
  const bool weights = run.manifest.exchange == federation::Exchange::kWeights;
  std::map<int, audit::UnitLayout> layouts;
  if (weights) {
    PCMOE_ASSIGN_OR_RETURN(layouts, LayoutsOf(run, (*base)->config()));
  }
  audit::AuditInput input{.names = run.names,
                          .coalition = members,
                          .truths = truths,
                          .base = **base,
                          .shadow = shadow,
                          .layouts = layouts,
                          .minutes = flags.minutes,
                          .progress = [](const std::string& line) { base::LogInfo(line); }};
  absl::StatusOr<ReleasedModel> released = absl::NotFoundError("no victim kept its tokens");
  if (!truths.empty()) {
    const int victim = truths.begin()->first;
    released = ReadReleasedModel(flags.run, run.names, run.names[static_cast<size_t>(victim)],
                                 (*base)->config(), tokenizer, run.config.sequence_length);
    if (released.ok()) {
      input.released = {
          .model = released->model.get(), .victim = victim, .its_text = released->its_text};
    }
  }
  PCMOE_ASSIGN_OR_RETURN(audit::Report report,
                         weights ? audit::AuditWeights(input) : audit::AuditRows(input));
  if (!released.ok()) {
    report.warnings.push_back(absl::StrCat("the final model was not attacked: ",
                                           std::string(released.status().message())));
  }
  if (!flags.html.empty()) {
    PCMOE_RETURN_IF_ERROR(base::WriteFileAtomically(flags.html, audit::ToHtml(report)));
  }
  std::cout << (flags.json ? audit::ToJson(report) + "\n" : audit::ToText(report));
  return CheckBars(flags, report);
}

}  // namespace

void AddAudit(CLI::App& app, absl::Status& result) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* audit = app.add_subcommand(
      "audit", "Attack a recorded run: what did these parties learn about the others?");
  audit->add_option("--run", flags->run, "Folder of the run: the --out of pcmoe sim")->required();
  audit->add_option("--coalition", flags->coalition, "Attacking parties, separated by commas")
      ->required();
  audit
      ->add_option("--shadow", flags->shadow, "Public text as JSONL, as like the private as can be")
      ->required();
  audit->add_option("--base", flags->base, "Public checkpoint; without it, the run's own start");
  audit->add_option("--html", flags->html, "Also write one self-contained page");
  audit->add_option("--minutes", flags->minutes, "Time to aim at")->check(CLI::Range(0.1, 1e4));
  audit->add_option("--threads", flags->threads, "Threads; without it, all cores")
      ->check(CLI::Range(1, 1024));
  audit->add_option("--fail-above", flags->fail_above,
                    "Exit code 1 when an attack gets more: NUMBER for every attack on tokens and "
                    "labels, or ATTACK=NUMBER (repeatable)");
  audit->add_flag("--json", flags->json, "One JSON object on stdout");
  audit->callback([flags, &result] { result = Run(*flags); });
}

}  // namespace pcmoe::cli
