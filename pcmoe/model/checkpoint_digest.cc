// pcmoe/model/checkpoint_digest.cc: one digest for the weights of a checkpoint folder.
#include <algorithm>

#include "pcmoe/model/parameters.h"

namespace pcmoe::model {

absl::StatusOr<base::Sha256> DigestOfCheckpoint(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  }
  if (error || files.empty()) {
    return absl::NotFoundError(absl::StrCat(folder.string(), ": has no .safetensors file"));
  }
  std::sort(files.begin(), files.end());
  std::string lines;
  for (const std::filesystem::path& file : files) {
    PCMOE_ASSIGN_OR_RETURN(const base::Sha256 digest, base::DigestOfFile(file));
    absl::StrAppend(&lines, base::ToHex(digest), " ", file.filename().string(), "\n");
  }
  return base::DigestOf(lines);
}

}  // namespace pcmoe::model
