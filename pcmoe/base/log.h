// pcmoe/base/log.h: messages for people, on stderr. Never a tensor, a token, a text or a key.
#pragma once

#include <string_view>

namespace pcmoe::base {

/// Who is speaking, put before every line; empty by default. Call once at start.
void SetLogName(std::string_view name);

/// One line on stderr with time and name. Thread-safe.
void LogInfo(std::string_view line);
void LogWarning(std::string_view line);
void LogError(std::string_view line);

}  // namespace pcmoe::base
