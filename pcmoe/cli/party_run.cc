// pcmoe/cli/party_run.cc: see party_run.h. Order: config, identity, data, model, channel, trainer.
#include "pcmoe/cli/party_run.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include <atomic>
#include <csignal>

#include "pcmoe/base/file.h"
#include "pcmoe/base/log.h"
#include "pcmoe/base/random.h"
#include "pcmoe/cli/about.h"
#include "pcmoe/cli/backbone_modes.h"
#include "pcmoe/cli/party_export.h"
#include "pcmoe/cli/party_policy.h"
#include "pcmoe/cli/party_recording.h"
#include "pcmoe/cli/report.h"
#include "pcmoe/exchange/rows/rows_provider.h"
#include "pcmoe/exchange/weights/weights_provider.h"
#include "pcmoe/provision/identity.h"
#include "pcmoe/tensor/memory.h"
#include "pcmoe/train/export_run.h"
#include "pcmoe/train/trainer.h"
#include "pcmoe/transport/grpc_channel.h"

namespace pcmoe::cli {
namespace {

namespace fs = std::filesystem;

std::atomic<bool> g_interrupted{false};
void OnSignal(int) { g_interrupted.store(true); }

// What the party reads before it talks to anybody.
struct Inputs {
  train::RunConfig config;
  bool print_steps = true;
  std::optional<train::ExportRequest> only_export;  // instead of training
  std::optional<provision::Identity> identity;
  model::ModelConfig model;
  std::vector<data::BatchSource> sources;
  std::vector<std::string> eval_names;
  std::vector<eval::EvalSet> eval_sets;

  int parties() const { return identity ? static_cast<int>(identity->manifest.parties.size()) : 1; }
  int self() const { return identity ? static_cast<int>(identity->index) : 0; }
  std::vector<std::string> names() const {
    std::vector<std::string> result;
    for (int p = 0; identity && p < parties(); ++p) {
      result.push_back(identity->manifest.parties[static_cast<size_t>(p)].name);
    }
    if (result.empty()) result.push_back("self");
    return result;
  }
};

fs::path ModelFolder(const train::RunConfig& config) {
  const fs::path path = config.model_name_or_path;
  return fs::is_directory(path) ? path : path.parent_path();
}

absl::Status LoadFederation(const fs::path& config_path, Inputs& inputs) {
  if (inputs.config.identity == "none") return inputs.config.Validate();
  PCMOE_ASSIGN_OR_RETURN(inputs.identity, provision::LoadIdentity(inputs.config.identity));
  const federation::Manifest& manifest = inputs.identity->manifest;
  PCMOE_ASSIGN_OR_RETURN(const std::vector<std::string> keys, train::SharedKeysSet(config_path));
  inputs.config.schedule = std::string(NameOf(manifest.schedule));
  inputs.config.exchange = std::string(NameOf(manifest.exchange));
  PCMOE_RETURN_IF_ERROR(train::ApplySharedTraining(manifest.training, keys, inputs.config));
  base::SetLogName(inputs.identity->name);
  const absl::Duration left = inputs.identity->expires - absl::Now();
  if (left < absl::Hours(24 * 14)) {
    base::LogWarning(absl::StrCat("the certificate of this party ends in ",
                                  absl::FormatDuration(absl::Floor(left, absl::Hours(1)))));
  }
  return absl::OkStatus();
}

absl::Status LoadModelConfig(Inputs& inputs) {
  PCMOE_ASSIGN_OR_RETURN(inputs.model, model::LoadConfig(inputs.config.model_name_or_path));
  if (!inputs.identity) return absl::OkStatus();
  const federation::Manifest& manifest = inputs.identity->manifest;
  if (base::DigestOf(inputs.model.raw_json) != manifest.model_config_sha256) {
    return absl::FailedPreconditionError(
        absl::StrCat(inputs.config.model_name_or_path,
                     ": this model config is not the one of the signed manifest"));
  }
  if (manifest.checkpoint_sha256) {
    PCMOE_ASSIGN_OR_RETURN(const base::Sha256 digest,
                           model::DigestOfCheckpoint(ModelFolder(inputs.config)));
    if (digest != *manifest.checkpoint_sha256) {
      return absl::FailedPreconditionError(
          absl::StrCat(inputs.config.model_name_or_path,
                       ": these weights are not those of the signed manifest"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckTokenizerFits(const text::Tokenizer& tokenizer, const Inputs& inputs) {
  if (tokenizer.vocab_size() <= inputs.model.vocab_size) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the tokenizer has ", tokenizer.vocab_size(),
                                                 " tokens, more than the model's vocab_size ",
                                                 inputs.model.vocab_size));
}

void WarnOfLosses(const train::RunConfig& config, const std::string& path,
                  const data::DatasetCounts& counts) {
  const std::string losses = counts.Losses(config.sequence_length);
  if (!losses.empty()) base::LogWarning(absl::StrCat(path, ": ", losses));
}

absl::Status LoadData(Inputs& inputs) {
  const train::RunConfig& config = inputs.config;
  const std::string file = config.tokenizer.empty()
                               ? (ModelFolder(config) / "tokenizer.json").string()
                               : config.tokenizer;
  PCMOE_ASSIGN_OR_RETURN(const text::Tokenizer tokenizer, text::Tokenizer::Load(file));
  PCMOE_RETURN_IF_ERROR(CheckTokenizerFits(tokenizer, inputs));
  const data::DatasetOptions options = train::DatasetOptionsOf(config, tokenizer);
  const auto seed = static_cast<uint64_t>(config.data_seed >= 0 ? config.data_seed : config.seed);
  const bool grouped = options.batching == data::Batching::kGroupByLength;
  for (size_t i = 0; i < config.train.size(); ++i) {
    PCMOE_ASSIGN_OR_RETURN(data::Dataset dataset,
                           data::LoadDataset(config.train[i], tokenizer, options));
    WarnOfLosses(config, config.train[i], dataset.counts);
    if (dataset.counts.supervised > 0 && !grouped && !config.isolate_documents) {
      base::LogWarning(absl::StrCat(
          config.train[i],
          ": rows with labels share sequences and see each other; set [training] isolate_documents "
          "= true or [data] batching = \"group_by_length\""));
    }
    const size_t first = config.data_stream >= 0 ? static_cast<size_t>(config.data_stream)
                                                 : static_cast<size_t>(inputs.self());
    const size_t place = i + first;
    inputs.sources.emplace_back(std::move(dataset.sequences),
                                base::SeedOf(seed, absl::StrCat("data/", place)),
                                grouped ? config.per_device_train_batch_size : 1);
    if (inputs.sources.back().empty()) {
      base::LogWarning(absl::StrCat(config.train[i], ": has no text; nothing is trained on it"));
    }
  }
  for (const std::string& path : config.eval) {
    PCMOE_ASSIGN_OR_RETURN(eval::EvalSet set,
                           eval::EvalSet::Load(path, tokenizer,
                                               {.dataset = options,
                                                .batch_tokens = config.per_device_train_batch_size *
                                                                config.sequence_length}));
    WarnOfLosses(config, path, set.counts());
    inputs.eval_names.push_back(path);
    inputs.eval_sets.push_back(std::move(set));
  }
  if (inputs.parties() == 1 && inputs.sources.empty()) {
    return absl::InvalidArgumentError(
        "[data] train names no file, so there is nothing to train on");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<transport::Channel>> OpenChannel(
    const Inputs& inputs, const provision::Identity& identity) {
  const federation::Manifest& manifest = identity.manifest;
  transport::GrpcChannelOptions options;
  options.self = inputs.self();
  for (size_t p = 0; p < manifest.parties.size(); ++p) {
    const federation::PartyEntry& party = manifest.parties[p];
    options.parties.push_back({party.name, party.host, party.port, manifest.IdentityOf(p)});
  }
  if (!inputs.config.listen.empty()) options.listen_host = inputs.config.listen;
  options.ca_pem = identity.ca_pem;
  options.certificate_pem = identity.certificate_pem;
  options.key_pem = identity.key_pem;
  const base::Sha256 digest = manifest.Digest();
  std::copy_n(digest.begin(), options.run.size(), options.run.begin());
  options.max_message_bytes = manifest.limits.max_message_bytes;
  options.keepalive = absl::Seconds(inputs.config.keepalive_s);
  options.keepalive_timeout = options.keepalive;
  return transport::CreateGrpcChannel(options);
}

// After the output_dir is there and before the first step: a run that is killed has it too.
void WriteAboutOf(const Inputs& inputs) {
  size_t most = 0;
  for (const eval::EvalSet& set : inputs.eval_sets) most = std::max(most, set.batches().size());
  const RunFacts facts{.config = inputs.config,
                       .model = inputs.model,
                       .identity = inputs.identity ? &*inputs.identity : nullptr,
                       .train_files = static_cast<int64_t>(inputs.sources.size()),
                       .eval_micro_batches = static_cast<int64_t>(most)};
  WriteAbout(AboutRun(facts), inputs.config.output_dir);
}

train::ExportRequest RequestOf(const Inputs& inputs) {
  train::ExportRequest request =
      RequestFor(inputs.only_export, inputs.config, ModelFolder(inputs.config));
  request.party = inputs.names()[static_cast<size_t>(inputs.self())];
  if (inputs.identity) request.federation = base::ToHex(inputs.identity->manifest.Digest());
  return request;
}

absl::Status ExportOnly(const Inputs& inputs, exchange::Session& session,
                        const train::Checkpoints& checkpoints, train::PartyModel& model,
                        train::ModelExport& exports) {
  return train::RunExport({.session = session,
                           .model = model,
                           .checkpoints = checkpoints,
                           .rendezvous_timeout = absl::Seconds(inputs.config.rendezvous_timeout_s),
                           .wait_for_peers = inputs.config.on_peer_loss == "wait",
                           .interrupted = [] { return g_interrupted.load(); },
                           .model_export = exports,
                           .step = inputs.only_export->step});
}

absl::Status RunAlone(Inputs& inputs) {
  const train::RunConfig& config = inputs.config;
  const uint64_t baseline = tensor::AllocatedBytes();
  PCMOE_ASSIGN_OR_RETURN(const auto model,
                         train::PartyModel::Create(inputs.model, config, AllExperts(inputs.model)));
  model::LocalExperts experts(model->shard());
  exchange::Session session(nullptr, nullptr, {.names = inputs.names()});
  train::Checkpoints checkpoints(config.output_dir, "", config.save_total_limit);
  const auto sparse = static_cast<size_t>(
      std::count(inputs.model.sparse_layers.begin(), inputs.model.sparse_layers.end(), true));
  PCMOE_ASSIGN_OR_RETURN(
      const federation::Placement placement,
      federation::Placement::Create({}, sparse, static_cast<size_t>(inputs.model.num_experts), 1));
  const exchange::ExpertMap map(inputs.model, placement);
  exchange::ModelFetch fetch(inputs.model, map, {inputs.model, map, {}}, model->shard(),
                             model->backbone(), session);
  train::ModelExport exports(inputs.model, session, nullptr, SourceOf(fetch), RequestOf(inputs));
  PCMOE_RETURN_IF_ERROR(exports.CheckTarget());
  if (inputs.only_export) return ExportOnly(inputs, session, checkpoints, *model, exports);
  PCMOE_ASSIGN_OR_RETURN(train::RunReport report,
                         train::RunReport::Create(config.output_dir, config.max_steps,
                                                  config.logging_steps, inputs.print_steps));
  WriteAboutOf(inputs);
  return train::Trainer({.config = config,
                         .session = session,
                         .experts = experts,
                         .model = *model,
                         .sources = inputs.sources,
                         .eval_names = inputs.eval_names,
                         .eval_sets = inputs.eval_sets,
                         .checkpoints = checkpoints,
                         .report = report,
                         .baseline_bytes = baseline,
                         .interrupted = [] { return g_interrupted.load(); },
                         .model_export = exports.wanted() ? &exports : nullptr})
      .Run();
}

exchange::MaskKeySigner SignerOf(const provision::Identity& identity, int self) {
  return {
      .sign =
          [&identity, self](const border::MaskKeyPair& key, const border::MaskContext& context) {
            return border::SignMaskKey(key, context, self, identity.certificate_pem,
                                       identity.key_pem);
          },
      .verify =
          [&identity](std::span<const uint8_t> share, const border::MaskContext& context,
                      wire::PartyIndex party) {
            return border::VerifyMaskKey(share, context, party,
                                         identity.manifest.IdentityOf(static_cast<size_t>(party)),
                                         identity.ca_pem);
          }};
}

// The exchange of the manifest, on top of the session.
struct Exchange {
  std::unique_ptr<exchange::OwnedExperts> owned;  // of rows
  std::unique_ptr<model::ExpertProvider> experts;
  exchange::RowsProvider* rows = nullptr;  // of rows: experts
};

absl::StatusOr<Exchange> OpenExchange(const Inputs& inputs, const provision::Identity& identity,
                                      const exchange::ExpertMap& map,
                                      const exchange::BackboneOwners& owners,
                                      train::PartyModel& model, exchange::Session& session) {
  const federation::Manifest& manifest = identity.manifest;
  const base::KeyedStream::Key& secret = identity.shuffle_key;
  Exchange result;
  if (manifest.parties.size() == 1) {  // nobody to exchange anything with
    result.experts = std::make_unique<model::LocalExperts>(model.shard());
    return result;
  }
  if (manifest.exchange == federation::Exchange::kRows) {
    result.owned = std::make_unique<exchange::OwnedExperts>(
        inputs.model, map, model.shard(), session, static_cast<int64_t>(manifest.limits.max_rows));
    auto rows = std::make_unique<exchange::RowsProvider>(*result.owned, session, secret);
    result.rows = rows.get();
    result.experts = std::move(rows);
    return result;
  }
  const exchange::WeightsProvider::Options options{
      .min_rows = inputs.config.min_rows,
      .keep_fetched = inputs.config.keep_fetched_weights,
      .int8 = inputs.config.weights_on_wire == "int8",
      .allow_pairwise = inputs.config.allow_pairwise,
      .recompute = inputs.config.gradient_checkpointing};
  PCMOE_ASSIGN_OR_RETURN(result.experts, exchange::WeightsProvider::Create(
                                             inputs.model, map, owners, model.shard(),
                                             model.backbone(), session, options,
                                             {.signer = SignerOf(identity, inputs.self()),
                                              .run = wire::RunIdOf(manifest.Digest()),
                                              .rounding = secret}));
  return result;
}

absl::Status RunFederated(Inputs& inputs, const provision::Identity& identity) {
  const train::RunConfig& config = inputs.config;
  const federation::Manifest& manifest = identity.manifest;
  if (manifest.exchange == federation::Exchange::kRows && !config.allow_readable_rows) {
    return absl::FailedPreconditionError(
        "exchange \"rows\" lets the owners of the experts read this party's token rows; set "
        "[border] allow_readable_rows = true if that is meant (docs/privacy.md says what they "
        "learn)");
  }
  const auto sparse = static_cast<size_t>(
      std::count(inputs.model.sparse_layers.begin(), inputs.model.sparse_layers.end(), true));
  PCMOE_ASSIGN_OR_RETURN(const federation::Placement placement,
                         federation::Placement::Create(
                             manifest.owners, sparse, static_cast<size_t>(inputs.model.num_experts),
                             manifest.parties.size()));
  const exchange::ExpertMap map(inputs.model, placement);
  const exchange::BackboneOwners owners(inputs.model, map, BackboneModesOf(config));
  const uint64_t baseline = tensor::AllocatedBytes();
  PCMOE_ASSIGN_OR_RETURN(
      const auto model,
      train::PartyModel::Create(inputs.model, config, owners.HoldingsOf(inputs.self(), map)));
  PCMOE_RETURN_IF_ERROR(base::CreateFolder(config.output_dir, 0700));
  PCMOE_ASSIGN_OR_RETURN(
      auto ledger,
      border::Ledger::Open(fs::path(config.output_dir) / "ledger.jsonl", inputs.names()));
  PCMOE_ASSIGN_OR_RETURN(border::Policy policy, PolicyOf(config, inputs.names()));
  border::EgressGate gate(std::move(policy), std::move(ledger));
  PCMOE_ASSIGN_OR_RETURN(PartyRecording recording, PartyRecording::Create(config, identity.name));
  PCMOE_ASSIGN_OR_RETURN(std::unique_ptr<transport::Channel> bare, OpenChannel(inputs, identity));
  PCMOE_ASSIGN_OR_RETURN(const std::unique_ptr<transport::Channel> channel,
                         recording.Wrap(std::move(bare)));
  exchange::Session session(
      channel.get(), &gate,
      {.peer_timeout = absl::Seconds(config.peer_timeout_s), .names = inputs.names()});
  session.SetInterrupt([] { return g_interrupted.load(); });
  train::Checkpoints checkpoints(config.output_dir, base::ToHex(manifest.Digest()),
                                 config.save_total_limit);
  exchange::ModelFetch fetch(inputs.model, map, owners, model->shard(), model->backbone(), session);
  train::ModelExport exports(inputs.model, session, &gate, SourceOf(fetch), RequestOf(inputs));
  PCMOE_RETURN_IF_ERROR(exports.CheckTarget());
  if (exports.wanted()) PCMOE_RETURN_IF_ERROR(CheckMessagesFit(fetch, manifest));
  if (inputs.only_export) {
    const absl::Status exported = ExportOnly(inputs, session, checkpoints, *model, exports);
    session.Close();
    return exported;
  }
  PCMOE_RETURN_IF_ERROR(exports.CheckPolicy());  // not only after hours of training
  PCMOE_ASSIGN_OR_RETURN(train::RunReport report,
                         train::RunReport::Create(config.output_dir, config.max_steps,
                                                  config.logging_steps, inputs.print_steps));
  WriteAboutOf(inputs);
  PCMOE_ASSIGN_OR_RETURN(const Exchange opened,
                         OpenExchange(inputs, identity, map, owners, *model, session));
  if (opened.rows != nullptr) recording.Observe(session, *opened.rows);
  const absl::Status status =
      train::Trainer({.config = config,
                      .session = session,
                      .experts = *opened.experts,
                      .model = *model,
                      .gate = &gate,
                      .sources = inputs.sources,
                      .eval_names = inputs.eval_names,
                      .eval_sets = inputs.eval_sets,
                      .checkpoints = checkpoints,
                      .report = report,
                      .schedule_seed = manifest.schedule_seed,
                      .baseline_bytes = baseline,
                      .interrupted = [] { return g_interrupted.load(); },
                      .batches_observer = recording.BatchesObserver(),
                      .model_export = exports.wanted() ? &exports : nullptr})
          .Run();
  session.Close();
  return status;
}

}  // namespace

namespace {

absl::Status Run(const fs::path& config_path, const std::vector<std::string>& overrides,
                 Inputs inputs) {
  std::signal(SIGINT, OnSignal);
  std::signal(SIGTERM, OnSignal);
  std::signal(SIGPIPE, SIG_IGN);
  tensor::InstallCountingAllocator();
  PCMOE_ASSIGN_OR_RETURN(inputs.config, train::LoadRunConfig(config_path, overrides));
  PCMOE_RETURN_IF_ERROR(LoadFederation(config_path, inputs));
  at::set_num_threads(static_cast<int>(inputs.config.num_threads));
  at::globalContext().setFlushDenormal(true);
  PCMOE_RETURN_IF_ERROR(LoadModelConfig(inputs));
  if (!inputs.only_export) PCMOE_RETURN_IF_ERROR(LoadData(inputs));
  PCMOE_RETURN_IF_ERROR(inputs.identity ? RunFederated(inputs, *inputs.identity)
                                        : RunAlone(inputs));
  if (!inputs.only_export) WriteReportOrWarn(inputs.config.output_dir);
  return absl::OkStatus();
}

}  // namespace

absl::Status RunParty(const fs::path& config_path, const std::vector<std::string>& overrides,
                      bool print_steps) {
  return Run(config_path, overrides, {.print_steps = print_steps});
}

absl::Status ExportParty(const fs::path& config_path, const std::vector<std::string>& overrides,
                         const train::ExportRequest& request) {
  return Run(config_path, overrides, {.only_export = request});
}

}  // namespace pcmoe::cli
