// pcmoe/train/run_config.h: the one TOML file of a run: strict, with transformers' names.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "pcmoe/base/status.h"
#include "pcmoe/data/dataset.h"

namespace pcmoe::train {

/// Every setting with its default. Plain data. Relative paths are relative to the config's folder.
struct RunConfig {
  // [model]
  std::string model_name_or_path;  ///< Folder with config.json (and weights), or a config.json.
  std::string tokenizer;           ///< tokenizer.json; empty: the one in the model's folder.
  // [data]
  std::vector<std::string> train;  ///< JSONL files; several are read side by side (central runs).
  std::vector<std::string> eval;   ///< JSONL files, each evaluated by itself.
  std::string text_column = "text";
  std::string label_column = "label";  ///< Of rows to classify; a row without it is plain text.
  std::string label_separator = "\n";  ///< Between a row's text and its label.
  std::string loss_on = "completion";  ///< Of rows with a label or completion; or "all" tokens.
  std::string batching = "packed";     ///< Or "group_by_length": a row a sequence (data/dataset.h).
  // [training]: equal for all parties, therefore in the manifest
  double learning_rate = 1e-3;
  std::string lr_scheduler_type = "linear";
  int64_t warmup_steps = 0;
  int64_t max_steps = 100;
  double weight_decay = 0.0;
  double adam_beta1 = 0.9;
  double adam_beta2 = 0.999;
  double adam_epsilon = 1e-8;
  double max_grad_norm = 1.0;
  double router_aux_loss_coef = -1;  ///< Negative: the model config's, if it outputs router logits.
  int64_t sequence_length = 256;
  std::string precision = "fp32";  ///< "fp32" or "bf16" (compute; weights stay fp32)
  bool isolate_documents = false;
  int64_t save_steps = 0;  ///< 0: only at the end.
  int64_t eval_steps = 0;  ///< 0: only at the end.
  /// "eval_loss" or "eval_accuracy": the mean over the parties is shared at every evaluation, and
  /// the checkpoint of the best one is kept. Empty: nothing is shared.
  std::string metric_for_best_model;
  int64_t early_stopping_patience =
      0;             ///< Evaluations without a better mean that end a run; 0: off.
  int64_t seed = 0;  ///< Initial weights; and, with the party, the order of data.
  // [training]: each party's own
  int64_t per_device_train_batch_size = 4;
  int64_t gradient_accumulation_steps = 1;
  int64_t data_seed = -1;    ///< Negative: from `seed` and the party's place.
  int64_t data_stream = -1;  ///< Whose order of data; negative: this party's place. For sim's runs.
  bool gradient_checkpointing = false;  ///< Recompute in backward.
  int64_t num_threads = 1;
  int64_t logging_steps = 1;
  int64_t save_total_limit = 2;
  // [federation]: read by provision and sim
  std::string exchange = "weights";  ///< "weights", or "rows" (the paper's protocol).
  std::string schedule = "synchronous";
  std::string placement =
      "round_robin";  ///< Or a JSON file: a list, or one list a layer, of party names.
  // [federation]: equal for all parties, with exchange "weights"
  std::string backbone = "auto";   ///< "aggregated" (auto, with weights), "private" or "frozen".
  std::string embedding = "auto";  ///< "frozen" (auto, from a checkpoint), "private" (auto, from
  std::string head = "auto";       ///< scratch; head always) or "aggregated".
  /// Of the learning rate, for a private backbone and a private embedding, the head left out.
  /// What all parties train together changes under a backbone that follows its own rows at full
  /// speed. Negative: 0.1 from a checkpoint without an aggregated backbone, else 1.
  double private_lr_scale = -1;
  /// Of the learning rate, for the routed experts, which learn from everybody's rows while what is
  /// private learns from few. Negative: from a checkpoint 3 beside a private backbone, 2 where
  /// backbone, embedding or head are otherwise not aggregated; else 1, as in a central run.
  double expert_lr_scale = -1;
  int64_t min_rows = -1;                  ///< Negative: four times the hidden size. 0: no bound.
  bool keep_fetched_weights = false;      ///< For backward, instead of fetching them again.
  std::string weights_on_wire = "model";  ///< As they are used; or "int8", with a scale per row.
  // [border]
  bool allow_readable_rows = false;
  bool allow_pairwise = false;      ///< Exchange "weights" between two parties alone.
  std::string policy;               ///< A TOML file: which kinds may go to whom (party_policy.h).
  std::vector<std::string> forbid;  ///< "receiver:kind" or "*:kind" that may never leave.
  /// A party's own name: keep all that it receives, or its own tokens, in output_dir, for
  /// `pcmoe audit`. Another name is refused. For a sim: names separated by commas.
  std::string record_received, record_truth;
  // [run]
  /// This party's folder, as provisioned; "none": a run of one party without a federation.
  std::string identity = ".";
  std::string listen;  ///< Address to listen on; empty: every one. Port: the manifest's.
  std::string output_dir = "out";
  std::string export_dir;  ///< Takes the whole model at the end of the run; empty: no export.
  std::string on_peer_loss = "wait";  ///< "wait" for its return, or "stop".
  double peer_timeout_s = 60;
  double keepalive_s = 10;
  double rendezvous_timeout_s = 600;
  std::string resume_from_checkpoint = "auto";  ///< "auto", or "never" (needs an empty output_dir).

  /// INVALID_ARGUMENT with the first rule broken.
  absl::Status Validate() const;
};

/// Puts what "auto" and negative scales and bounds mean into backbone, embedding, head,
/// private_lr_scale, expert_lr_scale and min_rows, for a run that starts from a checkpoint or from
/// scratch with a model of this width; INVALID_ARGUMENT for settings that contradict each other.
absl::Status ResolveBackbone(bool from_checkpoint, bool tied, int64_t hidden_size,
                             RunConfig& config);

/// How the config's files are read with this tokenizer.
data::DatasetOptions DatasetOptionsOf(const RunConfig& config, const text::Tokenizer& tokenizer);

/// Names of the keys that all parties must share.
const std::vector<std::string>& SharedTrainingKeys();

/// Reads `path`, then `overrides` ("table.key=value"). INVALID_ARGUMENT names the key, its place
/// and what is near to an unknown one.
absl::StatusOr<RunConfig> LoadRunConfig(const std::filesystem::path& path,
                                        const std::vector<std::string>& overrides);

/// The shared settings as text, for a manifest; and back into `config`. A shared key that the
/// party's own file sets to something else than the manifest is an error.
std::map<std::string, std::string> SharedTraining(const RunConfig& config);
absl::Status ApplySharedTraining(const std::map<std::string, std::string>& shared,
                                 const std::vector<std::string>& set_keys, RunConfig& config);

/// The shared keys that a file sets (for ApplySharedTraining).
absl::StatusOr<std::vector<std::string>> SharedKeysSet(const std::filesystem::path& path);

/// The config as TOML text, for the files that provision and sim write. The keys that all parties
/// share are left to the manifest unless `with_shared` (a run without a federation has none).
std::string ToToml(const RunConfig& config, const std::vector<std::string>& tables,
                   bool with_shared = false);

}  // namespace pcmoe::train
