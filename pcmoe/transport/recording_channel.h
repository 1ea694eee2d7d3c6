// pcmoe/transport/recording_channel.h: keeps every received message, for `pcmoe audit`.
#pragma once

#include <filesystem>
#include <memory>

#include "pcmoe/transport/channel.h"

namespace pcmoe::transport {

/// The file inside the folder of a recording.
inline constexpr char kRecordingFile[] = "messages.bin";

/// Wraps `channel` so that each message that Next gives out is appended to FOLDER/messages.bin
/// (folder mode 0700, file mode 0600) as wire/record.h says, with exactly the bytes received.
/// Payloads are what other parties trusted this one with: the caller must have been asked for it by
/// name. When the disk fails a warning is logged once and nothing more is kept; the run goes on.
/// Everything else is the wrapped channel's. FAILED_PRECONDITION when the file cannot be opened.
absl::StatusOr<std::unique_ptr<Channel>> RecordReceived(std::unique_ptr<Channel> channel,
                                                        const std::filesystem::path& folder);

}  // namespace pcmoe::transport
