// pcmoe/border/verify_ledger.cc: the format of ledger records, and the check of a whole ledger.
#include <charconv>
#include <cstring>
#include <optional>

#include "absl/strings/numbers.h"
#include "pcmoe/base/file.h"
#include "pcmoe/border/ledger.h"

namespace pcmoe::border {
namespace {

constexpr std::string_view kHashField = ",\"hash\":\"";
constexpr size_t kHexBytes = 64;
constexpr std::string_view kEnd = "\"}";

// Reads the fixed order of fields; a byte out of place ends the reading.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}

  bool Literal(std::string_view expected) {
    if (!text_.starts_with(expected)) return false;
    text_.remove_prefix(expected.size());
    return true;
  }

  template <typename T>
  bool Number(T& value) {
    const auto [end, error] = std::from_chars(text_.data(), text_.data() + text_.size(), value);
    if (error != std::errc()) return false;
    text_.remove_prefix(static_cast<size_t>(end - text_.data()));
    return true;
  }

  bool Name(std::string& value) {
    const size_t end = text_.find('"');
    if (end == std::string_view::npos || end == 0) return false;
    value = text_.substr(0, end);
    text_.remove_prefix(end);
    return true;
  }

  bool AtEnd() const { return text_.empty(); }

 private:
  std::string_view text_;
};

bool ScanRecord(std::string_view text, LedgerRecord& record) {
  Scanner scanner(text);
  wire::MessageHeader& header = record.header;
  return scanner.Literal("{\"seq\":") && scanner.Number(record.seq) &&
         scanner.Literal(",\"step\":") && scanner.Number(header.step) &&
         scanner.Literal(",\"attempt\":") && scanner.Number(header.attempt) &&
         scanner.Literal(",\"layer\":") && scanner.Number(header.layer) &&
         scanner.Literal(",\"micro_batch\":") && scanner.Number(header.micro_batch) &&
         scanner.Literal(",\"to\":\"") && scanner.Name(record.to) &&
         scanner.Literal("\",\"kind\":\"") && scanner.Name(record.kind) &&
         scanner.Literal("\",\"bytes\":") && scanner.Number(record.bytes) && scanner.AtEnd();
}

void AppendNumber(std::string& text, std::string_view field, uint64_t value) {
  char digits[24];
  const auto end = std::to_chars(digits, digits + sizeof(digits), value).ptr;
  text.append(field);
  text.append(digits, end);
}

}  // namespace

void AppendRecordText(const LedgerRecord& record, std::string& text) {
  AppendNumber(text, "{\"seq\":", record.seq);
  AppendNumber(text, ",\"step\":", record.header.step);
  AppendNumber(text, ",\"attempt\":", record.header.attempt);
  AppendNumber(text, ",\"layer\":", record.header.layer);
  AppendNumber(text, ",\"micro_batch\":", record.header.micro_batch);
  text.append(",\"to\":\"").append(record.to);
  text.append("\",\"kind\":\"").append(record.kind);
  AppendNumber(text, "\",\"bytes\":", record.bytes);
}

base::Sha256 ChainHash(const base::Sha256& previous, std::string_view text) {
  std::string bytes(reinterpret_cast<const char*>(previous.data()), previous.size());
  bytes.append(text);
  return base::DigestOf(bytes);
}

absl::StatusOr<LedgerRecord> ReadRecord(std::string_view line, bool check_hash,
                                        base::Sha256& previous) {
  constexpr size_t kTail = kHashField.size() + kHexBytes + kEnd.size();
  if (line.size() < kTail) return absl::DataLossError("is no record");
  const std::string_view text = line.substr(0, line.size() - kTail);
  const std::string_view tail = line.substr(text.size());
  LedgerRecord record;
  if (!tail.starts_with(kHashField) || !tail.ends_with(kEnd) || !ScanRecord(text, record)) {
    return absl::DataLossError("is no record");
  }
  const auto hash = base::Sha256FromHex(tail.substr(kHashField.size(), kHexBytes));
  if (!hash.ok()) return absl::DataLossError("has no hash");
  if (check_hash && *hash != ChainHash(previous, text)) {
    return absl::DataLossError(
        "does not fit the one before it: one of the two was changed, or a record was dropped or "
        "moved "
        "here");
  }
  previous = *hash;
  return record;
}

absl::StatusOr<LedgerSummary> VerifyLedger(const std::filesystem::path& path,
                                           const std::function<void(const LedgerRecord&)>& visit) {
  PCMOE_ASSIGN_OR_RETURN(const base::MappedFile file, base::MappedFile::Open(path));
  std::string_view rest(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  LedgerSummary summary;
  while (!rest.empty()) {
    const size_t end = rest.find('\n');
    if (end == std::string_view::npos) {
      summary.half_record_bytes = rest.size();
      break;
    }
    auto record = ReadRecord(rest.substr(0, end), /*check_hash=*/true, summary.head);
    if (record.ok() && record->seq != summary.records + 1) {
      record = absl::DataLossError("has the wrong number");
    }
    if (!record.ok()) {
      return absl::DataLossError(absl::StrCat(path.string(), ": record ", summary.records + 1, " ",
                                              record.status().message()));
    }
    rest.remove_prefix(end + 1);
    ++summary.records;
    const uint64_t step = record->header.step;
    summary.first_step = summary.records == 1 ? step : std::min(summary.first_step, step);
    summary.last_step = std::max(summary.last_step, step);
    LedgerSummary::Sum& sum = summary.sums[{record->to, record->kind}];
    sum.bytes += record->bytes;
    ++sum.messages;
    if (visit) visit(*record);
  }
  return summary;
}

}  // namespace pcmoe::border
