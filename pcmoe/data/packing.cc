// pcmoe/data/packing.cc: see packing.h.
#include "pcmoe/data/packing.h"

#include <optional>
#include <utility>

#include "pcmoe/data/jsonl.h"

namespace pcmoe::data {
namespace {

constexpr int32_t kLongestSequence = 1 << 24;

}  // namespace

absl::StatusOr<Packer> Packer::Create(const PackOptions& options) {
  if (options.sequence_length < 2 || options.sequence_length > kLongestSequence) {
    return absl::InvalidArgumentError(absl::StrCat("the sequence length ", options.sequence_length,
                                                   " is not in 2..", kLongestSequence));
  }
  if (options.eos_id < -1 || options.pad_id < 0) {
    return absl::InvalidArgumentError("eos_id or pad_id is negative");
  }
  return Packer(options);
}

void Packer::Push(int32_t token, int32_t label, bool starts_document) {
  if (starts_document || open_.tokens.empty()) {
    open_.document_starts.push_back(static_cast<int32_t>(open_.tokens.size()));
  }
  open_.tokens.push_back(token);
  open_.labels.push_back(label);
  if (open_.tokens.size() < static_cast<size_t>(options_.sequence_length)) return;
  done_.push_back(std::exchange(open_, Sequence{}));
}

void Packer::AddFlowing(std::span<const int32_t> ids) {
  for (size_t i = 0; i < ids.size(); ++i) Push(ids[i], ids[i], i == 0);
}

void Packer::Add(std::span<const int32_t> ids) {
  if (ids.empty()) return;
  AddFlowing(ids);
  if (options_.eos_id >= 0) Push(options_.eos_id, options_.eos_id, false);
}

void Packer::AddWhole(std::span<const int32_t> ids, std::span<const int32_t> labels) {
  const auto length = static_cast<size_t>(options_.sequence_length);
  if (open_.tokens.size() + ids.size() > length) PadAndClose();
  for (size_t i = 0; i < ids.size(); ++i) Push(ids[i], labels[i], i == 0);
}

void Packer::PadAndClose() {
  const auto length = static_cast<size_t>(options_.sequence_length);
  open_.labels.resize(length, kIgnoredLabel);
  open_.document_starts.push_back(static_cast<int32_t>(open_.tokens.size()));
  open_.tokens.resize(length, options_.pad_id);
  done_.push_back(std::exchange(open_, Sequence{}));
}

std::vector<Sequence> Packer::Finish() && {
  if (!open_.tokens.empty() && options_.last == LastSequence::kPad) PadAndClose();
  return std::move(done_);
}

absl::StatusOr<std::vector<Sequence>> LoadSequences(const std::vector<std::filesystem::path>& files,
                                                    const text::Tokenizer& tokenizer,
                                                    const PackOptions& options,
                                                    const std::string& column) {
  PCMOE_ASSIGN_OR_RETURN(Packer packer, Packer::Create(options));
  for (const std::filesystem::path& file : files) {
    PCMOE_ASSIGN_OR_RETURN(JsonlReader reader, JsonlReader::Open(file, {.column = column}));
    while (true) {
      PCMOE_ASSIGN_OR_RETURN(const std::optional<std::string> text, reader.Next());
      if (!text) break;
      const auto ids = tokenizer.Encode(*text, options.add_special_tokens);
      if (!ids.ok()) {
        return WithContext(ids.status(), absl::StrCat(file.string(), ":", reader.line()));
      }
      packer.Add(*ids);
    }
  }
  return std::move(packer).Finish();
}

}  // namespace pcmoe::data
