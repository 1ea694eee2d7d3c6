// pcmoe/train/export_writer.cc: see export_writer.h.
#include "pcmoe/train/export_writer.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/max.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "pcmoe/base/file.h"
#include "pcmoe/base/random.h"

namespace pcmoe::train {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr int64_t kCheckTokens = 32;
constexpr double kLogitsTolerance = 1e-6;

// Without a slash at the end, so that it has a name and a parent.
fs::path TargetOf(const ExportRequest& request) {
  const fs::path path = fs::absolute(request.out).lexically_normal();
  return path.has_filename() ? path : path.parent_path();
}

fs::path Beside(const fs::path& target, absl::string_view prefix) {
  return target.parent_path() / absl::StrCat(prefix, target.filename().string());
}

at::Tensor RandomTokens(const model::ModelConfig& config) {
  const int64_t length = std::min(kCheckTokens, config.max_position_embeddings);
  at::Tensor tokens = at::empty({1, length}, at::kLong);
  int64_t* data = tokens.mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i < length; ++i) {
    data[i] = static_cast<int64_t>(base::SeedOf(static_cast<uint64_t>(i), "export/token") %
                                   static_cast<uint64_t>(config.vocab_size));
  }
  return tokens;
}

base::Sha256 DigestOfTensor(const at::Tensor& tensor) {
  const at::Tensor data = tensor.contiguous();
  return base::DigestOf({static_cast<const char*>(data.const_data_ptr()), data.nbytes()});
}

absl::Status CopyTokenizer(const fs::path& from, const fs::path& folder) {
  std::error_code error;
  fs::copy_file(from, folder / "tokenizer.json", fs::copy_options::overwrite_existing, error);
  if (!error) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(from.string(), ": cannot copy it to ", folder.string(), ": ", error.message()));
}

// An earlier export is set aside, and comes back when the new one cannot take its place.
absl::Status Publish(const fs::path& temporary, const fs::path& target) {
  std::error_code error;
  if (!fs::exists(target, error) || fs::is_empty(target, error)) {
    return base::PublishFolder(temporary, target);
  }
  const fs::path aside = Beside(target, ".replaced-");
  fs::remove_all(aside, error);
  fs::rename(target, aside, error);
  if (error) {
    return absl::FailedPreconditionError(
        absl::StrCat(target.string(), ": cannot be set aside: ", error.message()));
  }
  const absl::Status published = base::PublishFolder(temporary, target);
  if (!published.ok()) {
    fs::rename(aside, target, error);
    return published;
  }
  fs::remove_all(aside, error);
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckExportTarget(const ExportRequest& request) {
  const fs::path target = TargetOf(request);
  std::error_code error;
  if (!fs::exists(target, error)) return absl::OkStatus();
  if (!fs::is_directory(target, error)) {
    return absl::AlreadyExistsError(absl::StrCat(target.string(), ": is not a folder"));
  }
  if (fs::is_empty(target, error)) return absl::OkStatus();
  if (!fs::exists(target / kExportNote, error)) {
    return absl::AlreadyExistsError(absl::StrCat(
        target.string(), ": is not empty and is no export of pcmoe; choose another folder"));
  }
  if (request.replace) return absl::OkStatus();
  return absl::AlreadyExistsError(absl::StrCat(
      target.string(), ": holds an earlier export; choose another folder, or add --replace"));
}

ExportWriter::ExportWriter(const model::ModelConfig& config, ExportRequest request)
    : config_(config),
      request_(std::move(request)),
      target_(TargetOf(request_)),
      temporary_(Beside(target_, ".unfinished-")) {}

ExportWriter::~ExportWriter() {
  std::error_code ignored;
  fs::remove_all(temporary_, ignored);
}

absl::Status ExportWriter::WriteNote(int64_t step) const {
  const Json note{{"federation", request_.federation},
                  {"party", request_.party},
                  {"global_step", step},
                  {"tensors", summary_.tensors},
                  {"bytes", summary_.bytes}};
  return base::WriteFileAtomically(temporary_ / kExportNote, note.dump(2) + "\n");
}

absl::Status ExportWriter::Write(const model::NextStage& next, int64_t step) {
  PCMOE_RETURN_IF_ERROR(CheckExportTarget(request_));
  std::error_code ignored;
  fs::remove_all(temporary_, ignored);  // of an export that was killed
  const at::NoGradGuard no_grad;
  PCMOE_ASSIGN_OR_RETURN(model::CheckpointWriter writer,
                         model::CheckpointWriter::Create(temporary_, config_, request_.base_folder,
                                                         request_.max_shard_bytes));
  proof_ = {.tokens_bs = RandomTokens(config_)};
  const auto write = [&](int64_t stage) -> absl::StatusOr<model::StageTensors> {
    PCMOE_ASSIGN_OR_RETURN(model::StageTensors tensors, next(stage));
    std::vector<model::NamedTensor> named = NamedStage(config_, stage, tensors);
    for (const model::NamedTensor& item : named) {
      proof_.digests[item.name] = DigestOfTensor(item.tensor);
    }
    PCMOE_RETURN_IF_ERROR(writer.Add(std::move(named)));
    return tensors;
  };
  PCMOE_ASSIGN_OR_RETURN(proof_.logits_bsv, StagedLogits(config_, proof_.tokens_bs, write));
  PCMOE_RETURN_IF_ERROR(writer.Finish());
  summary_ = {
      .bytes = writer.total_bytes(), .tensors = proof_.digests.size(), .shards = writer.shards()};
  if (!request_.tokenizer.empty()) {
    PCMOE_RETURN_IF_ERROR(CopyTokenizer(request_.tokenizer, temporary_));
  }
  return WriteNote(step);
}

absl::StatusOr<ExportSummary> ExportWriter::Finish() {
  const at::NoGradGuard no_grad;
  PCMOE_ASSIGN_OR_RETURN(summary_.largest_difference, VerifyExport(temporary_, config_, proof_));
  if (!request_.logits_file.empty()) {
    const std::vector<tensor::NamedTensor> tensors = {{"input_ids", proof_.tokens_bs},
                                                      {"logits", proof_.logits_bsv}};
    PCMOE_RETURN_IF_ERROR(tensor::WriteSafetensors(request_.logits_file, tensors).status());
  }
  PCMOE_RETURN_IF_ERROR(Publish(temporary_, target_));
  return summary_;
}

absl::StatusOr<double> VerifyExport(const fs::path& folder, const model::ModelConfig& config,
                                    const ExportProof& proof) {
  const auto differs = [&folder](absl::string_view what) {
    return absl::DataLossError(
        absl::StrCat(folder.string(), ": what was written differs from what was in memory: ", what,
                     "; is the disk sound?"));
  };
  size_t seen = 0;
  const auto read = [&](int64_t stage) -> absl::StatusOr<model::StageTensors> {
    PCMOE_ASSIGN_OR_RETURN(model::StageTensors tensors, LoadStage(folder, config, stage));
    for (const model::NamedTensor& item : NamedStage(config, stage, tensors)) {
      const auto digest = proof.digests.find(item.name);
      if (digest == proof.digests.end() || digest->second != DigestOfTensor(item.tensor)) {
        return differs(item.name);
      }
      ++seen;
    }
    return tensors;
  };
  PCMOE_ASSIGN_OR_RETURN(const at::Tensor logits_bsv, StagedLogits(config, proof.tokens_bs, read));
  if (seen != proof.digests.size()) return differs("the number of tensors");
  const double largest = proof.logits_bsv.abs().max().item<double>();
  const double difference = (logits_bsv - proof.logits_bsv).abs().max().item<double>();
  if (!(largest < 1e30)) {  // nor NaN
    return absl::DataLossError("the model's logits are not finite, so there is nothing to export");
  }
  if (!(difference <= kLogitsTolerance * largest)) return differs("the logits of random tokens");
  return difference == 0 ? 0 : difference / largest;
}

}  // namespace pcmoe::train
