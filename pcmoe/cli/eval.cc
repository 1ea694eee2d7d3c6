// pcmoe/cli/eval.cc: `pcmoe eval`: what a checkpoint folder is worth on files of one's own.
#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "pcmoe/base/log.h"
#include "pcmoe/cli/commands.h"
#include "pcmoe/eval/whole_model.h"

namespace pcmoe::cli {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

struct Flags {
  std::string model, tokenizer, labels, precision = "fp32";
  std::vector<std::string> files;
  data::JsonlOptions jsonl;
  int64_t batch_tokens = 4096, sequence_length = 0, threads = 0;
  bool json = false;
};

Json JsonOf(const eval::EvalSet& set, const eval::EvalResult& result, double seconds) {
  Json json{{"eval_loss", result.Loss()},
            {"perplexity", std::exp(result.Loss())},
            {"eval_tokens", result.loss_tokens},
            {"rows", set.counts().rows},
            {"rows_cut", set.counts().cut},
            {"tokens", set.counts().tokens},
            {"seconds", seconds},
            {"tokens_per_s", static_cast<double>(set.counts().tokens) / std::max(seconds, 1e-9)}};
  if (!result.accuracy) return json;
  const eval::Accuracy& accuracy = *result.accuracy;
  json["eval_accuracy"] = accuracy.Share(accuracy.right);
  json["eval_accuracy_norm"] = accuracy.Share(accuracy.right_normalised);
  json["majority"] = accuracy.Share(accuracy.majority);
  json["eval_examples"] = accuracy.examples;
  json["labels"] = set.labels();
  return json;
}

void Print(const std::string& file, const eval::EvalSet& set, const eval::EvalResult& result,
           double seconds) {
  std::cout << absl::StrFormat("%s: loss %.4f, perplexity %.2f over %d tokens of %d rows", file,
                               result.Loss(), std::exp(result.Loss()), result.loss_tokens,
                               set.counts().rows);
  if (result.accuracy) {
    const eval::Accuracy& accuracy = *result.accuracy;
    std::cout << absl::StrFormat(
        "; accuracy %.2f %% of %d (by length %.2f %%, commonest label %.2f %%)",
        100 * accuracy.Share(accuracy.right), accuracy.examples,
        100 * accuracy.Share(accuracy.right_normalised), 100 * accuracy.Share(accuracy.majority));
  }
  std::cout << absl::StrFormat("; %.0f tokens/s\n",
                               static_cast<double>(set.counts().tokens) / std::max(seconds, 1e-9));
}

absl::Status Run(const Flags& flags) {
  at::set_num_threads(static_cast<int>(
      flags.threads > 0 ? flags.threads : std::max(1U, std::thread::hardware_concurrency())));
  at::globalContext().setFlushDenormal(true);
  PCMOE_ASSIGN_OR_RETURN(
      const auto model,
      eval::WholeModel::Load(flags.model, flags.precision == "bf16" ? at::kBFloat16 : at::kFloat));
  const fs::path file = flags.tokenizer.empty() ? fs::path(flags.model) / "tokenizer.json"
                                                : fs::path(flags.tokenizer);
  PCMOE_ASSIGN_OR_RETURN(const text::Tokenizer tokenizer, text::Tokenizer::Load(file));
  if (tokenizer.vocab_size() > model->config().vocab_size) {
    return absl::InvalidArgumentError(absl::StrCat(
        file.string(), ": has ", tokenizer.vocab_size(), " tokens, more than the model's ",
        model->config().vocab_size, "; name the model's own with --tokenizer"));
  }
  const int64_t most = model->config().max_position_embeddings;
  const int64_t length =
      flags.sequence_length > 0 ? flags.sequence_length : std::min<int64_t>(most, 1024);
  eval::EvalSet::Options options{
      .dataset = {.jsonl = flags.jsonl,
                  .pack = {.sequence_length = static_cast<int32_t>(length),
                           .eos_id = tokenizer.EosId().value_or(-1)}},
      .batch_tokens = flags.batch_tokens};
  if (!flags.labels.empty()) options.labels = absl::StrSplit(flags.labels, ',');
  Json all = Json::object();
  for (const std::string& path : flags.files) {
    PCMOE_ASSIGN_OR_RETURN(const eval::EvalSet set, eval::EvalSet::Load(path, tokenizer, options));
    const std::string losses = set.counts().Losses(length);
    if (!losses.empty()) base::LogWarning(absl::StrCat(path, ": ", losses));
    const absl::Time begin = absl::Now();
    PCMOE_ASSIGN_OR_RETURN(const eval::EvalResult result, model->Evaluate(set));
    if (result.loss_tokens == 0) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": has no token to evaluate"));
    }
    const double seconds = absl::ToDoubleSeconds(absl::Now() - begin);
    all[path] = JsonOf(set, result, seconds);
    if (!flags.json) Print(path, set, result, seconds);
  }
  if (flags.json) std::cout << all.dump() << "\n";
  return absl::OkStatus();
}

}  // namespace

void AddEval(CLI::App& app, absl::Status& result) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* eval = app.add_subcommand(
      "eval", "Evaluate a model folder: perplexity, and accuracy where rows have labels");
  eval->add_option("files", flags->files,
                   "JSONL files: {text}, {text, label}, {prompt, completion}")
      ->required();
  eval->add_option("--model", flags->model, "Folder with config.json and all weights")->required();
  eval->add_option("--tokenizer", flags->tokenizer, "tokenizer.json; without it, the model's");
  eval->add_option("--labels", flags->labels,
                   "Labels to choose from, by commas; without it, those of the file");
  eval->add_option("--text-column", flags->jsonl.column, "Key of the text");
  eval->add_option("--label-column", flags->jsonl.label_column, "Key of the label");
  eval->add_option("--label-separator", flags->jsonl.label_separator, "Between text and label");
  eval->add_option("--sequence-length", flags->sequence_length, "Most tokens of a row")
      ->check(CLI::Range(2, 1 << 20));
  eval->add_option("--batch-tokens", flags->batch_tokens, "Most tokens of a micro-batch")
      ->check(CLI::Range(1, 1 << 24));
  eval->add_option("--precision", flags->precision, "fp32 or bf16")
      ->check(CLI::IsMember({"fp32", "bf16"}));
  eval->add_option("--threads", flags->threads, "Threads; without it, all cores")
      ->check(CLI::Range(1, 1024));
  eval->add_flag("--json", flags->json, "One JSON object on stdout, by file");
  eval->callback([flags, &result] { result = Run(*flags); });
}

}  // namespace pcmoe::cli
