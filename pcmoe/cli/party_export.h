// pcmoe/cli/party_export.h: what a party's export is made of, from its config and manifest.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "pcmoe/exchange/weights/model_fetch.h"
#include "pcmoe/federation/manifest.h"
#include "pcmoe/train/model_export.h"
#include "pcmoe/train/run_config.h"

namespace pcmoe::cli {

/// Where the export goes: as `only_export` says, else to [run] export_dir, in the place of an
/// earlier export by the same party's run. An empty `out`: there is none.
train::ExportRequest RequestFor(const std::optional<train::ExportRequest>& only_export,
                                const train::RunConfig& config,
                                const std::filesystem::path& model_folder);

/// The stages of `fetch`, which outlives what is returned.
train::ExportSource SourceOf(exchange::ModelFetch& fetch);

/// FAILED_PRECONDITION when a message of an export is larger than the manifest allows.
absl::Status CheckMessagesFit(const exchange::ModelFetch& fetch,
                              const federation::Manifest& manifest);

}  // namespace pcmoe::cli
