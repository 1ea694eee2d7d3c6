// pcmoe/audit/truth.cc: see truth.h. Records: a fixed head, then int32 numbers.
#include "pcmoe/audit/truth.h"

#include <cstring>

#include "pcmoe/base/file.h"

namespace pcmoe::audit {
namespace {

constexpr uint32_t kBatchMagic = 0x42544350;  // "PCTB"
constexpr uint32_t kRowsMagic = 0x52544350;   // "PCTR"

// Little-endian, as it lies in memory.
struct Head {
  uint32_t magic = 0;
  uint16_t layer = 0;
  uint16_t micro_batch = 0;
  int64_t step = 0;
  uint32_t sequences_or_owner = 0;
  uint32_t numbers = 0;  // int32 that follow
};
static_assert(sizeof(Head) == 24);

void Append(std::ofstream& file, const Head& head, std::span<const int32_t> first,
            std::span<const int32_t> second) {
  const auto write = [&file](const void* data, size_t bytes) {
    file.write(static_cast<const char*>(data), static_cast<std::streamsize>(bytes));
  };
  write(&head, sizeof(head));
  write(first.data(), first.size_bytes());
  write(second.data(), second.size_bytes());
}

}  // namespace

absl::StatusOr<TruthWriter> TruthWriter::Create(const std::filesystem::path& folder) {
  PCMOE_RETURN_IF_ERROR(base::CreateFolder(folder, 0700));
  const std::filesystem::path path = folder / kTruthFile;
  std::ofstream file(path, std::ios::binary | std::ios::app);
  std::error_code error;
  std::filesystem::permissions(
      path, std::filesystem::perms::owner_read | std::filesystem::perms::owner_write, error);
  if (!file || error) {
    return absl::FailedPreconditionError(absl::StrCat(path.string(), ": cannot be opened"));
  }
  return TruthWriter(std::move(file));
}

void TruthWriter::AddBatch(const TrueBatch& batch) {
  Append(file_,
         {.magic = kBatchMagic,
          .micro_batch = static_cast<uint16_t>(batch.micro_batch),
          .step = batch.step,
          .sequences_or_owner = static_cast<uint32_t>(batch.sequences),
          .numbers = static_cast<uint32_t>(2 * batch.tokens.size())},
         batch.tokens, batch.labels);
}

void TruthWriter::AddRows(int64_t step, int64_t layer, int64_t micro_batch, int owner,
                          std::span<const int64_t> token_r) {
  const std::vector<int32_t> rows(token_r.begin(), token_r.end());
  Append(file_,
         {.magic = kRowsMagic,
          .layer = static_cast<uint16_t>(layer),
          .micro_batch = static_cast<uint16_t>(micro_batch),
          .step = step,
          .sequences_or_owner = static_cast<uint32_t>(owner),
          .numbers = static_cast<uint32_t>(rows.size())},
         rows, {});
}

absl::Status TruthWriter::Finish() {
  file_.flush();
  if (file_) return absl::OkStatus();
  return absl::DataLossError("the truth for the audit could not be written whole");
}

absl::StatusOr<Truth> Truth::Load(const std::filesystem::path& path) {
  PCMOE_ASSIGN_OR_RETURN(const base::MappedFile file, base::MappedFile::Open(path));
  const std::span<const uint8_t> bytes = file.bytes();
  Truth truth;
  for (size_t at = 0; bytes.size() - at >= sizeof(Head);) {
    Head head;
    std::memcpy(&head, bytes.data() + at, sizeof(head));
    const auto bad = [&](absl::string_view what) {
      return absl::DataLossError(absl::StrCat(path.string(), ": byte ", at, " ", what));
    };
    if (head.magic != kBatchMagic && head.magic != kRowsMagic) return bad("is not a record");
    const size_t numbers = head.numbers;
    if (numbers * sizeof(int32_t) > bytes.size() - at - sizeof(head)) break;  // cut off by a crash
    std::vector<int32_t> values(numbers);
    if (numbers > 0) {
      std::memcpy(values.data(), bytes.data() + at + sizeof(head), numbers * sizeof(int32_t));
    }
    if (head.magic == kRowsMagic) {
      truth.rows_.insert_or_assign(
          {head.step, head.layer, head.micro_batch, static_cast<int>(head.sequences_or_owner)},
          std::move(values));
    } else {
      const size_t sequences = head.sequences_or_owner;
      if (sequences == 0 || numbers % (2 * sequences) != 0) return bad("has a batch of no shape");
      const auto half = values.begin() + static_cast<std::ptrdiff_t>(numbers / 2);
      truth.batches_.insert_or_assign({head.step, head.micro_batch},
                                      TrueBatch{.step = head.step,
                                                .micro_batch = head.micro_batch,
                                                .sequences = static_cast<int64_t>(sequences),
                                                .tokens = {values.begin(), half},
                                                .labels = {half, values.end()}});
    }
    at += sizeof(head) + numbers * sizeof(int32_t);
  }
  return truth;
}

std::span<const int32_t> Truth::RowsOf(int64_t step, int64_t layer, int64_t micro_batch,
                                       int owner) const {
  const auto found = rows_.find({step, layer, micro_batch, owner});
  if (found == rows_.end()) return {};
  return found->second;
}

}  // namespace pcmoe::audit
