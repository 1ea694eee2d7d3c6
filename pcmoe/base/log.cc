// pcmoe/base/log.cc: see log.h.
#include "pcmoe/base/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <string>

namespace pcmoe::base {
namespace {

spdlog::logger& Logger() {
  static const auto logger = [] {
    auto created = spdlog::stderr_logger_mt("pcmoe");
    created->set_pattern("%H:%M:%S %l %v");
    created->flush_on(spdlog::level::info);
    return created;
  }();
  return *logger;
}

}  // namespace

void SetLogName(std::string_view name) {
  Logger().set_pattern(name.empty() ? "%H:%M:%S %l %v"
                                    : "%H:%M:%S " + std::string(name) + " %l %v");
}

void LogInfo(std::string_view line) { Logger().info("{}", line); }
void LogWarning(std::string_view line) { Logger().warn("{}", line); }
void LogError(std::string_view line) { Logger().error("{}", line); }

}  // namespace pcmoe::base
