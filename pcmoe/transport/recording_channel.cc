// pcmoe/transport/recording_channel.cc: see recording_channel.h.
#include "pcmoe/transport/recording_channel.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <span>
#include <utility>

#include "pcmoe/base/file.h"
#include "pcmoe/base/log.h"
#include "pcmoe/wire/record.h"

namespace pcmoe::transport {
namespace {

class RecordingChannel final : public Channel {
 public:
  RecordingChannel(std::unique_ptr<Channel> channel, int fd)
      : channel_(std::move(channel)), fd_(fd) {}
  ~RecordingChannel() override { ::close(fd_); }

  int parties() const override { return channel_->parties(); }
  wire::PartyIndex self() const override { return channel_->self(); }
  absl::Status Send(wire::Sealed message, absl::Time deadline) override {
    return channel_->Send(std::move(message), deadline);
  }
  std::optional<Event> Next(absl::Time deadline) override {
    std::optional<Event> event = channel_->Next(deadline);
    if (event && event->kind == Event::Kind::kMessage) Record(*event);
    return event;
  }
  void Drop(wire::PartyIndex peer, const absl::Status& why) override { channel_->Drop(peer, why); }
  absl::Status PeerStatus(wire::PartyIndex peer) const override {
    return channel_->PeerStatus(peer);
  }
  Traffic TrafficWith(wire::PartyIndex peer) const override { return channel_->TrafficWith(peer); }
  void Close(absl::Time deadline) override { channel_->Close(deadline); }

 private:
  // One thread calls Next, so the file needs no lock.
  void Record(const Event& event) {
    if (broken_) return;
    const std::span<const uint8_t> payload = event.message.payload.bytes();
    const auto header = wire::EncodeRecordHeader(
        {.header = event.message.header, .from = event.peer, .payload_bytes = payload.size()});
    broken_ = !Write(header) || !Write(payload);
    if (broken_) {
      base::LogWarning(absl::StrCat("recording: cannot write: ", std::strerror(errno),
                                    "; received messages are no longer kept"));
    }
  }

  bool Write(std::span<const uint8_t> bytes) const {
    while (!bytes.empty()) {
      const ssize_t written = ::write(fd_, bytes.data(), bytes.size());
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) return false;
      bytes = bytes.subspan(static_cast<size_t>(written));
    }
    return true;
  }

  const std::unique_ptr<Channel> channel_;
  const int fd_;
  bool broken_ = false;
};

// Bytes of `fd` that are whole records: a killed run leaves half of one, and more would follow it.
absl::StatusOr<off_t> WholeRecords(int fd) {
  const off_t size = ::lseek(fd, 0, SEEK_END);
  off_t whole = 0;
  std::array<uint8_t, wire::kRecordHeaderBytes> head;
  while (size - whole >= static_cast<off_t>(head.size())) {
    if (::pread(fd, head.data(), head.size(), whole) != static_cast<ssize_t>(head.size())) break;
    PCMOE_ASSIGN_OR_RETURN(const wire::RecordHeader record, wire::DecodeRecordHeader(head));
    const auto left = static_cast<uint64_t>(size - whole) - head.size();
    if (record.payload_bytes > left) break;
    whole += static_cast<off_t>(head.size() + record.payload_bytes);
  }
  return whole;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Channel>> RecordReceived(std::unique_ptr<Channel> channel,
                                                        const std::filesystem::path& folder) {
  PCMOE_RETURN_IF_ERROR(base::CreateFolder(folder, 0700));
  const std::filesystem::path path = folder / kRecordingFile;
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(path.string(), ": cannot be opened: ", std::strerror(errno)));
  }
  auto recording = std::make_unique<RecordingChannel>(std::move(channel), fd);
  const auto whole = WholeRecords(fd);
  if (!whole.ok()) return WithContext(whole.status(), path.string());
  if (::ftruncate(fd, *whole) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(path.string(), ": cannot be cut: ", std::strerror(errno)));
  }
  base::LogWarning(
      absl::StrCat("[border] record_received: every payload that this party receives is kept in ",
                   folder.string(),
                   "; it holds what others trusted this party with, remove it after the audit"));
  return recording;
}

}  // namespace pcmoe::transport
