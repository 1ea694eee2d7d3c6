// pcmoe/report/provenance.cc: how a run was made: commands, settings, digests, machine.
#include <algorithm>

#include "absl/strings/str_join.h"
#include "pcmoe/report/parts.h"

namespace pcmoe::report {
namespace {

bool IsPlain(const std::string& word) {
  const auto plain = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
           std::string_view("_-./=:,@+%{}").find(c) != std::string_view::npos;
  };
  return !word.empty() && std::all_of(word.begin(), word.end(), plain);
}

std::string Quoted(const std::string& word) {
  if (IsPlain(word) && word.find('{') == std::string::npos) return word;
  std::string quoted = "'";
  for (const char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

std::string ValueText(const Json& value) {
  return value.is_string() ? value.get<std::string>()
                           : value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// The digests that the processes agree on; of those that differ, each with the process's name.
Table Digests(const std::vector<Mode>& modes) {
  Table table{.header = {"", "SHA-256"}, .numbers = false};
  std::map<std::pair<std::string, std::string>, std::vector<std::string>> users;
  for (const Mode& mode : modes) {
    for (const RunFolder& run : mode.processes) {
      const Json& digests = At(run.about, "digests");
      if (!digests.is_object()) continue;
      for (const auto& [key, value] : digests.items()) {
        if (!value.is_string()) continue;
        std::vector<std::string>& names = users[{key, value.get<std::string>()}];
        if (names.empty() || names.back() != mode.name) names.push_back(mode.name);
      }
    }
  }
  for (const auto& [digest, names] : users) {
    const bool several = modes.size() > 1;
    table.rows.push_back(
        {{digest.first, several ? absl::StrJoin(names, ", ") : ""}, {digest.second}});
  }
  return table;
}

}  // namespace

std::string ShellLine(const std::vector<std::string>& words) {
  std::vector<std::string> quoted;
  for (const std::string& word : words) quoted.push_back(Quoted(word));
  return absl::StrJoin(quoted, " ");
}

void AddRows(const Json& object, Table& table) {
  if (!object.is_object()) return;
  for (const auto& [key, value] : object.items()) {
    if (!value.is_null()) table.rows.push_back({{key}, {ValueText(value)}});
  }
}

Section ProvenanceSection(const Json& about, const std::vector<Mode>& modes) {
  Section section{.title = "How it was made"};
  const std::vector<std::string> command = TextsAt(about, "command");
  if (command.empty()) {
    section.blocks.emplace_back(Text{
        "The folder does not say by which command, on what machine and of what version: it has "
        "no about.json."});
  } else {
    section.blocks.emplace_back(Commands{{ShellLine(command)}});
  }
  Commands others;
  for (const Mode& mode : modes) {
    for (const RunFolder& run : mode.processes) {
      const std::vector<std::string> words = TextsAt(run.about, "command");
      if (!words.empty() && words != command) others.lines.push_back(ShellLine(words));
    }
  }
  if (!others.lines.empty()) {
    section.blocks.emplace_back(Folded{"Commands of the processes", {std::move(others)}});
  }
  Table machine{.header = {"machine", ""}, .numbers = false};
  if (const std::string version = TextAt(about, "pcmoe"); !version.empty()) {
    machine.rows.push_back({{"pcmoe"}, {version}});
  }
  AddRows(At(about, "machine"), machine);
  for (std::vector<Cell>& row : machine.rows) {
    if (row[0].text != "memory_bytes") continue;
    row = {{"memory"}, {BytesText(NumberAt(At(about, "machine"), "memory_bytes"))}};
  }
  if (const std::string started = TextAt(about, "started"); !started.empty()) {
    machine.rows.push_back({{"started"}, {started}});
  }
  if (!machine.rows.empty()) section.blocks.emplace_back(std::move(machine));
  Table digests = Digests(modes);
  if (!digests.rows.empty()) section.blocks.emplace_back(std::move(digests));
  Table settings{.header = {"setting", ""}, .numbers = false};
  AddRows(At(about, "settings"), settings);
  if (!settings.rows.empty()) {
    section.blocks.emplace_back(Folded{"Settings", {std::move(settings)}});
  }
  return section;
}

}  // namespace pcmoe::report
