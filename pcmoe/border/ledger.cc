// pcmoe/border/ledger.cc: see ledger.h.
#include "pcmoe/border/ledger.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

namespace pcmoe::border {
namespace {

// Open checks this much of the end; VerifyLedger checks everything. A ledger of a long run has
// gigabytes, and a restart should not wait for them.
constexpr uint64_t kTailBytes = uint64_t{256} << 10;

std::string ErrnoText() { return std::generic_category().message(errno); }

absl::StatusOr<std::string> ReadTail(int fd, uint64_t file_bytes) {
  std::string tail(std::min(file_bytes, kTailBytes), '\0');
  const uint64_t start = file_bytes - tail.size();
  size_t done = 0;
  while (done < tail.size()) {
    const ssize_t count =
        ::pread(fd, tail.data() + done, tail.size() - done, static_cast<off_t>(start + done));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return absl::DataLossError(absl::StrCat("cannot be read: ", ErrnoText()));
    done += static_cast<size_t>(count);
  }
  return tail;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Ledger>> Ledger::Open(const std::filesystem::path& path,
                                                     std::vector<std::string> names) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0) {
    return absl::DataLossError(
        absl::StrCat(path.string(), ": the ledger cannot be opened: ", ErrnoText()));
  }
  std::unique_ptr<Ledger> ledger(new Ledger(path, std::move(names), fd));
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        path.string(), ": the ledger is open in another process; is this party running already?"));
  }
  const absl::Status status = ledger->ContinueChain();
  if (!status.ok()) {
    return absl::DataLossError(absl::StrCat(path.string(), ": the ledger ", status.message(),
                                            "; move it away to begin a new one"));
  }
  return ledger;
}

Ledger::Ledger(std::filesystem::path path, std::vector<std::string> names, int fd)
    : path_(std::move(path)), names_(std::move(names)), fd_(fd) {}

Ledger::~Ledger() { ::close(fd_); }

absl::Status Ledger::ContinueChain() {
  struct stat info{};
  if (::fstat(fd_, &info) != 0) return absl::DataLossError("cannot be read: " + ErrnoText());
  file_bytes_ = static_cast<uint64_t>(info.st_size);
  PCMOE_ASSIGN_OR_RETURN(const std::string tail, ReadTail(fd_, file_bytes_));
  const bool from_start = tail.size() == file_bytes_;

  const size_t last_newline = tail.rfind('\n');
  const size_t kept = last_newline == std::string::npos ? 0 : last_newline + 1;
  if (kept == 0 && !from_start) return absl::DataLossError("does not end in records");
  std::string_view rest = std::string_view(tail).substr(0, kept);
  // Unless the tail is the whole file it begins within a record, and the hash of the first whole
  // record has to be believed.
  if (!from_start) rest.remove_prefix(rest.find('\n') + 1);
  bool check_hash = from_start;
  while (!rest.empty()) {
    const size_t end = rest.find('\n');
    const auto record = ReadRecord(rest.substr(0, end), check_hash, head_);
    if (!record.ok()) {
      return absl::DataLossError(absl::StrCat("holds a record after number ", records_, " that ",
                                              record.status().message()));
    }
    if (check_hash && record->seq != records_ + 1) {
      return absl::DataLossError(absl::StrCat("lacks a record after number ", records_));
    }
    records_ = record->seq;
    check_hash = true;
    rest.remove_prefix(end + 1);
  }
  repaired_bytes_ = tail.size() - kept;
  if (repaired_bytes_ > 0) {
    file_bytes_ -= repaired_bytes_;
    if (::ftruncate(fd_, static_cast<off_t>(file_bytes_)) != 0) {
      return absl::DataLossError("ends in half a record that cannot be cut off: " + ErrnoText());
    }
  }
  return absl::OkStatus();
}

absl::Status Ledger::CannotWrite(absl::string_view what) {
  const std::string reason = ErrnoText();
  // The file must not keep half a record in its middle; without that nothing can follow.
  broken_ = ::ftruncate(fd_, static_cast<off_t>(file_bytes_)) != 0;
  return absl::DataLossError(absl::StrCat(path_.string(), ": the ledger cannot be ", what, " (",
                                          reason,
                                          "), so nothing may leave; make room and restart"));
}

absl::Status Ledger::Append(wire::PartyIndex to, const wire::MessageHeader& header,
                            uint64_t bytes) {
  if (broken_) {
    return absl::DataLossError(absl::StrCat(
        path_.string(), ": the ledger failed before, so nothing may leave; make room and restart"));
  }
  line_.clear();
  AppendRecordText({records_ + 1, header, NameOfParty(to), std::string(NameOf(header.kind)), bytes},
                   line_);
  const base::Sha256 hash = ChainHash(head_, line_);
  line_.append(",\"hash\":\"").append(base::ToHex(hash)).append("\"}\n");
  ssize_t written = 0;
  do {
    written = ::write(fd_, line_.data(), line_.size());
  } while (written < 0 && errno == EINTR);
  if (written != static_cast<ssize_t>(line_.size())) {
    if (written >= 0) errno = ENOSPC;
    return CannotWrite("written");
  }
  file_bytes_ += line_.size();
  ++records_;
  head_ = hash;
  return absl::OkStatus();
}

absl::Status Ledger::Sync() {
  if (::fsync(fd_) != 0) {
    return absl::DataLossError(
        absl::StrCat(path_.string(), ": the ledger cannot be synced: ", ErrnoText()));
  }
  return absl::OkStatus();
}

std::string Ledger::NameOfParty(wire::PartyIndex party) const {
  if (party < 0 || party >= static_cast<int>(names_.size())) return absl::StrCat("party ", party);
  return names_[static_cast<size_t>(party)];
}

}  // namespace pcmoe::border
