// pcmoe/border/ledger.h: the append-only, hash-chained record of everything that left the party.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "pcmoe/base/digest.h"
#include "pcmoe/base/status.h"
#include "pcmoe/wire/message.h"

namespace pcmoe::border {

/// One line of the ledger. `bytes` counts the frames on the channel, headers included.
struct LedgerRecord {
  uint64_t seq = 0;  ///< 1 for the first record of the file.
  wire::MessageHeader header;
  std::string to;  ///< The receiver's name in the manifest.
  std::string kind;
  uint64_t bytes = 0;
};

/// A file of JSON lines, each with the SHA-256 of the hash before it and of its own text, so that
/// no record can be changed, removed or put in without changing every hash after it
/// (docs/protocol.md). Cutting whole records off the end leaves a valid ledger: keep `head()`
/// elsewhere to notice that. Not thread-safe.
class Ledger {
 public:
  /// Opens or creates `path` (mode 0600) for this process alone and continues its chain. Half a
  /// record at the end, left by a crash, is cut off (see `repaired_bytes`). `names` are the parties
  /// in the manifest's order. DATA_LOSS when the last records do not fit together,
  /// FAILED_PRECONDITION when another process has the ledger open.
  static absl::StatusOr<std::unique_ptr<Ledger>> Open(const std::filesystem::path& path,
                                                      std::vector<std::string> names);
  ~Ledger();
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;

  /// Writes one record with one write(): it survives the death of the process, and that of the
  /// machine after Sync. DATA_LOSS when it cannot be written; the file then ends as it did before.
  absl::Status Append(wire::PartyIndex to, const wire::MessageHeader& header, uint64_t bytes);

  /// fsync.
  absl::Status Sync();

  /// Name of a party for sentences; "party <index>" when there is none.
  std::string NameOfParty(wire::PartyIndex party) const;
  uint64_t records() const { return records_; }
  /// Hash of the last record; zero in an empty ledger.
  const base::Sha256& head() const { return head_; }
  /// Bytes of half a record that Open cut off; 0 as a rule.
  uint64_t repaired_bytes() const { return repaired_bytes_; }

 private:
  Ledger(std::filesystem::path path, std::vector<std::string> names, int fd);
  absl::Status ContinueChain();
  absl::Status CannotWrite(absl::string_view what);

  const std::filesystem::path path_;
  const std::vector<std::string> names_;
  const int fd_;
  uint64_t records_ = 0;
  uint64_t file_bytes_ = 0;
  uint64_t repaired_bytes_ = 0;
  base::Sha256 head_{};
  std::string line_;  // reused from record to record
  bool broken_ = false;
};

/// What a whole ledger says.
struct LedgerSummary {
  uint64_t records = 0;
  /// Bytes and messages by (receiver, kind).
  struct Sum {
    uint64_t bytes = 0;
    uint64_t messages = 0;
    bool operator==(const Sum&) const = default;
  };
  std::map<std::pair<std::string, std::string>, Sum> sums;
  uint64_t first_step = 0;
  uint64_t last_step = 0;
  base::Sha256 head{};             ///< Hash of the last record; zero when there is none.
  uint64_t half_record_bytes = 0;  ///< Unfinished bytes at the end, after a crash.
};

/// Checks every record of the ledger at `path`, and gives each to `visit` (if any) when it was
/// found good. DATA_LOSS naming the number of the first record that is not what was written there:
/// changed, dropped, put in or moved.
absl::StatusOr<LedgerSummary> VerifyLedger(
    const std::filesystem::path& path,
    const std::function<void(const LedgerRecord&)>& visit = nullptr);

/// A record's line up to its hash, and the hash of a line after the record hashed `previous`.
/// Shared by writer and verifier; the format is in docs/protocol.md.
void AppendRecordText(const LedgerRecord& record, std::string& text);
base::Sha256 ChainHash(const base::Sha256& previous, std::string_view text);

/// Reads `line` (without its newline) and checks its hash against `previous`; gives the record and
/// moves `previous` on. DATA_LOSS with the reason. With `check_hash` false the hash is believed.
absl::StatusOr<LedgerRecord> ReadRecord(std::string_view line, bool check_hash,
                                        base::Sha256& previous);

}  // namespace pcmoe::border
