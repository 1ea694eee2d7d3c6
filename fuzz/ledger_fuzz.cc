// fuzz/ledger_fuzz.cc: any bytes are refused as a ledger, or are records that say the same when
// they are written again; a record that was found good is not good with another bit.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "fuzz/check.h"
#include "pcmoe/border/ledger.h"

namespace {

using pcmoe::base::Sha256;
using pcmoe::border::LedgerRecord;
using pcmoe::border::ReadRecord;

std::string LineOf(const LedgerRecord& record, const Sha256& previous) {
  std::string line;
  AppendRecordText(record, line);
  const std::string hash = pcmoe::base::ToHex(pcmoe::border::ChainHash(previous, line));
  return line + ",\"hash\":\"" + hash + "\"}";
}

void ReadAnyLine(std::string_view line) {
  const Sha256 start{};
  Sha256 head = start;
  const auto record = ReadRecord(line, /*check_hash=*/false, head);
  if (!record.ok()) return;
  const std::string again = LineOf(*record, start);
  head = start;
  const auto same = ReadRecord(again, /*check_hash=*/true, head);
  FUZZ_CHECK(same.ok());
  FUZZ_CHECK(same->header == record->header && same->to == record->to);
  FUZZ_CHECK(same->kind == record->kind && same->bytes == record->bytes);
  FUZZ_CHECK(same->seq == record->seq);
  // The hash may be spelled in capitals; every bit of the text counts.
  const size_t text = again.size() - 75;
  std::string changed = again;
  changed[line.size() * 31 % text] ^= static_cast<char>(1 << (line.size() & 7));
  head = start;
  FUZZ_CHECK(!ReadRecord(changed, /*check_hash=*/true, head).ok());
}

void VerifyAnything(std::string_view bytes) {
  const int fd = ::memfd_create("ledger", MFD_CLOEXEC);
  FUZZ_CHECK(fd >= 0);
  FUZZ_CHECK(::write(fd, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
  uint64_t visited = 0;
  const auto summary = pcmoe::border::VerifyLedger("/proc/self/fd/" + std::to_string(fd),
                                                   [&](const LedgerRecord&) { ++visited; });
  ::close(fd);
  if (!summary.ok()) return;
  FUZZ_CHECK(summary->records == visited && summary->half_record_bytes <= bytes.size());
  uint64_t messages = 0;
  for (const auto& [place, sum] : summary->sums) messages += sum.messages;
  FUZZ_CHECK(messages == visited && summary->first_step <= summary->last_step);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  ReadAnyLine(bytes.substr(0, bytes.find('\n')));
  VerifyAnything(bytes);
  return 0;
}
