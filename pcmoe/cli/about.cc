// pcmoe/cli/about.cc: see about.h.
#include "pcmoe/cli/about.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <thread>

#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "pcmoe/base/file.h"
#include "pcmoe/base/log.h"
#include "pcmoe/cli/backbone_modes.h"
#include "pcmoe/model/parameters.h"
#include "pcmoe/plan/weights_plan.h"

namespace pcmoe::cli {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

// The value of the first line "key : value" of a file of the system's; empty without one.
std::string FirstValue(const char* path, absl::string_view key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits(':', 1));
    if (parts.size() == 2 && absl::StripAsciiWhitespace(parts[0]) == key) {
      return std::string(absl::StripAsciiWhitespace(parts[1]));
    }
  }
  return "";
}

std::vector<std::string> CommandLine() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::vector<std::string> words;
  for (std::string word; std::getline(file, word, '\0');) words.push_back(word);
  if (!words.empty()) words[0] = fs::path(words[0]).filename().string();
  return words;
}

// A number as people write it: 0.9, where the manifest has 0.90000000000000002; other text as it
// is.
std::string ShortNumber(const std::string& text) {
  double value = 0;
  if (!absl::SimpleAtod(text, &value)) return text;
  char shortest[32];
  const auto end = std::to_chars(shortest, shortest + sizeof(shortest), value).ptr;
  return {shortest, end};
}

Json JsonOf(const plan::Memory& memory) {
  return {{"states_bytes", memory.states + memory.transient},
          {"peak_allocated_bytes", memory.peak_allocated()},
          {"message_bytes", memory.messages}};
}

plan::Recipe RecipeOf(const RunFacts& facts) {
  const train::RunConfig& config = facts.config;
  return {
      .bf16 = config.precision == "bf16",
      .recompute = config.gradient_checkpointing,
      .batch = config.per_device_train_batch_size,
      .sequence = config.sequence_length,
      .micro_batches = config.gradient_accumulation_steps * std::max<int64_t>(1, facts.train_files),
      .eval_micro_batches = std::min<int64_t>(8, facts.eval_micro_batches),
      .keep_fetched = config.keep_fetched_weights,
      .int8_on_wire = config.weights_on_wire == "int8"};
}

// Of this party; `central`: of one process with this party's batch and the whole model.
absl::StatusOr<Json> Planned(const RunFacts& facts) {
  const plan::Recipe recipe = RecipeOf(facts);
  const plan::Memory central = plan::PredictMemory(facts.model, recipe, 1);
  const auto parties =
      facts.identity == nullptr ? 1 : static_cast<int64_t>(facts.identity->manifest.parties.size());
  plan::Memory memory = central;
  if (parties > 1) {
    PCMOE_ASSIGN_OR_RETURN(
        const plan::WeightsPlan weights,
        plan::WeightsPlan::Create(facts.model, recipe, BackboneModesOf(facts.config), parties));
    const auto self = static_cast<int>(facts.identity->index);
    const bool rows = facts.config.exchange == "rows";
    memory = rows ? plan::PredictMemory(facts.model, recipe, parties) : weights.Largest();
    memory.states = weights.StatesOf(self);
    if (!rows) memory.transient = weights.TransientOf(self);
  }
  Json json = JsonOf(memory);
  json["central"] = JsonOf(central);
  return json;
}

absl::StatusOr<Json> Digests(const RunFacts& facts) {
  Json json;
  if (facts.identity != nullptr) json["manifest"] = base::ToHex(facts.identity->manifest.Digest());
  json["model config"] = base::ToHex(base::DigestOf(facts.model.raw_json));
  const fs::path base = facts.config.model_name_or_path;
  if (facts.identity != nullptr) {
    const auto& checkpoint = facts.identity->manifest.checkpoint_sha256;
    if (checkpoint) json["starting checkpoint"] = base::ToHex(*checkpoint);
  } else if (fs::exists(base / "model.safetensors") ||
             fs::exists(base / "model.safetensors.index.json")) {
    PCMOE_ASSIGN_OR_RETURN(const base::Sha256 digest, model::DigestOfCheckpoint(base));
    json["starting checkpoint"] = base::ToHex(digest);
  }
  return json;
}

}  // namespace

Json AboutThisProcess() {
  Json machine{{"cpu", FirstValue("/proc/cpuinfo", "model name")},
               {"cores", std::thread::hardware_concurrency()}};
  double kilobytes = 0;
  const std::string memory = FirstValue("/proc/meminfo", "MemTotal");
  if (absl::SimpleAtod(absl::StripSuffix(memory, " kB"), &kilobytes)) {
    machine["memory_bytes"] = kilobytes * 1024;
  }
  return {{"pcmoe", PCMOE_VERSION},
          {"command", CommandLine()},
          {"machine", std::move(machine)},
          {"started", absl::FormatTime("%Y-%m-%d %H:%M UTC", absl::Now(), absl::UTCTimeZone())}};
}

Json SettingsOf(const train::RunConfig& config) {
  Json json{{"model_name_or_path", config.model_name_or_path},
            {"train", absl::StrJoin(config.train, ", ")},
            {"eval", absl::StrJoin(config.eval, ", ")},
            {"exchange", config.exchange},
            {"schedule", config.schedule}};
  for (const auto& [key, value] : train::SharedTraining(config)) json[key] = ShortNumber(value);
  json["per_device_train_batch_size"] = config.per_device_train_batch_size;
  json["gradient_accumulation_steps"] = config.gradient_accumulation_steps;
  json["gradient_checkpointing"] = config.gradient_checkpointing;
  json["num_threads"] = config.num_threads;
  return json;
}

absl::StatusOr<Json> AboutRun(const RunFacts& facts) {
  Json json = AboutThisProcess();
  const train::RunConfig& config = facts.config;
  if (facts.identity != nullptr) {
    json["party"] = facts.identity->name;
    for (const auto& party : facts.identity->manifest.parties) {
      json["parties"].push_back(party.name);
    }
    json["description"] =
        absl::StrCat("Exchange ", config.exchange, ", backbone ", config.backbone, ", embedding ",
                     config.embedding, ", head ", config.head, ", ", config.schedule, ".");
  } else {
    json["description"] = "One process with the whole model, without a federation.";
  }
  json["settings"] = SettingsOf(config);
  if (facts.identity == nullptr) {
    json["settings"].erase("exchange");
    json["settings"].erase("schedule");
  }
  PCMOE_ASSIGN_OR_RETURN(json["digests"], Digests(facts));
  PCMOE_ASSIGN_OR_RETURN(json["planned"], Planned(facts));
  return json;
}

void WriteAbout(const absl::StatusOr<Json>& about, const fs::path& folder) {
  absl::Status status = about.status();
  if (status.ok()) {
    const std::string text = about->dump(2, ' ', false, Json::error_handler_t::replace);
    status = base::WriteFileAtomically(folder / "about.json", text + "\n");
  }
  if (!status.ok()) {
    base::LogWarning(
        absl::StrCat("the report will lack how the run was made: ", std::string(status.message())));
  }
}

}  // namespace pcmoe::cli
