// pcmoe/cli/party_export.cc: see party_export.h.
#include "pcmoe/cli/party_export.h"

namespace pcmoe::cli {

train::ExportRequest RequestFor(const std::optional<train::ExportRequest>& only_export,
                                const train::RunConfig& config,
                                const std::filesystem::path& model_folder) {
  train::ExportRequest request;
  if (only_export) {
    request = *only_export;
  } else {
    request.out = config.export_dir;
    request.replace = true;
  }
  request.base_folder = model_folder;
  request.tokenizer = config.tokenizer;
  return request;
}

train::ExportSource SourceOf(exchange::ModelFetch& fetch) {
  return {.begin = [&fetch](uint64_t version) { fetch.Begin(version); },
          .next = [&fetch](int64_t stage) { return fetch.Next(static_cast<int>(stage)); }};
}

absl::Status CheckMessagesFit(const exchange::ModelFetch& fetch,
                              const federation::Manifest& manifest) {
  if (fetch.LargestMessage() <= manifest.limits.max_message_bytes) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "an export sends a stage's units of an owner in fp32, up to ", fetch.LargestMessage(),
      " bytes, more than limits.max_message_bytes of the manifest, ",
      manifest.limits.max_message_bytes));
}

}  // namespace pcmoe::cli
