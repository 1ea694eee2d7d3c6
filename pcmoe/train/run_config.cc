// pcmoe/train/run_config.cc: see run_config.h. Every key is said once, in Fields().
#include "pcmoe/train/run_config.h"

#include <toml++/toml.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <sstream>
#include <variant>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "pcmoe/base/edit_distance.h"
#include "pcmoe/base/file.h"

namespace pcmoe::train {
namespace {

using Target = std::variant<std::string RunConfig::*, double RunConfig::*, int64_t RunConfig::*,
                            bool RunConfig::*, std::vector<std::string> RunConfig::*>;
struct Field {
  std::string table, key;
  Target target;
  bool shared = false;
};

const std::vector<Field>& Fields() {
  using C = RunConfig;
  static const std::vector<Field> fields = {
      {"model", "model_name_or_path", &C::model_name_or_path},
      {"model", "tokenizer", &C::tokenizer},
      {"data", "train", &C::train},
      {"data", "eval", &C::eval},
      {"data", "text_column", &C::text_column},
      {"data", "label_column", &C::label_column},
      {"data", "label_separator", &C::label_separator, true},
      {"data", "loss_on", &C::loss_on, true},
      {"data", "batching", &C::batching},
      {"training", "learning_rate", &C::learning_rate, true},
      {"training", "lr_scheduler_type", &C::lr_scheduler_type, true},
      {"training", "warmup_steps", &C::warmup_steps, true},
      {"training", "max_steps", &C::max_steps, true},
      {"training", "weight_decay", &C::weight_decay, true},
      {"training", "adam_beta1", &C::adam_beta1, true},
      {"training", "adam_beta2", &C::adam_beta2, true},
      {"training", "adam_epsilon", &C::adam_epsilon, true},
      {"training", "max_grad_norm", &C::max_grad_norm, true},
      {"training", "router_aux_loss_coef", &C::router_aux_loss_coef, true},
      {"training", "sequence_length", &C::sequence_length, true},
      {"training", "precision", &C::precision, true},
      {"training", "isolate_documents", &C::isolate_documents, true},
      {"training", "save_steps", &C::save_steps, true},
      {"training", "eval_steps", &C::eval_steps, true},
      {"training", "metric_for_best_model", &C::metric_for_best_model, true},
      {"training", "early_stopping_patience", &C::early_stopping_patience, true},
      {"training", "seed", &C::seed, true},
      {"training", "per_device_train_batch_size", &C::per_device_train_batch_size},
      {"training", "gradient_accumulation_steps", &C::gradient_accumulation_steps},
      {"training", "data_seed", &C::data_seed},
      {"training", "data_stream", &C::data_stream},
      {"training", "gradient_checkpointing", &C::gradient_checkpointing},
      {"training", "num_threads", &C::num_threads},
      {"training", "logging_steps", &C::logging_steps},
      {"training", "save_total_limit", &C::save_total_limit},
      {"federation", "exchange", &C::exchange},
      {"federation", "schedule", &C::schedule},
      {"federation", "placement", &C::placement},
      {"federation", "backbone", &C::backbone, true},
      {"federation", "embedding", &C::embedding, true},
      {"federation", "head", &C::head, true},
      {"federation", "private_lr_scale", &C::private_lr_scale, true},
      {"federation", "expert_lr_scale", &C::expert_lr_scale, true},
      {"federation", "min_rows", &C::min_rows, true},
      {"federation", "keep_fetched_weights", &C::keep_fetched_weights, true},
      {"federation", "weights_on_wire", &C::weights_on_wire, true},
      {"border", "allow_readable_rows", &C::allow_readable_rows},
      {"border", "allow_pairwise", &C::allow_pairwise},
      {"border", "policy", &C::policy},
      {"border", "forbid", &C::forbid},
      {"border", "record_received", &C::record_received},
      {"border", "record_truth", &C::record_truth},
      {"run", "identity", &C::identity},
      {"run", "listen", &C::listen},
      {"run", "output_dir", &C::output_dir},
      {"run", "export_dir", &C::export_dir},
      {"run", "on_peer_loss", &C::on_peer_loss},
      {"run", "peer_timeout_s", &C::peer_timeout_s},
      {"run", "keepalive_s", &C::keepalive_s},
      {"run", "rendezvous_timeout_s", &C::rendezvous_timeout_s},
      {"run", "resume_from_checkpoint", &C::resume_from_checkpoint},
  };
  return fields;
}

// "; did you mean [training] learning_rate?" for the nearest key, if one is near.
std::string Suggestion(std::string_view table, std::string_view key) {
  const Field* best = nullptr;
  size_t best_distance = std::max<size_t>(2, key.size() / 3) + 1;
  for (const Field& field : Fields()) {
    const size_t distance = base::EditDistance(key, field.key) + (field.table == table ? 0 : 1);
    if (distance >= best_distance) continue;
    best_distance = distance;
    best = &field;
  }
  if (best == nullptr) return "";
  return absl::StrCat("; did you mean [", best->table, "] ", best->key, "?");
}

const Field* Find(std::string_view table, std::string_view key) {
  for (const Field& field : Fields()) {
    if (field.table == table && field.key == key) return &field;
  }
  return nullptr;
}

// Shared keys have names of their own, whichever table they stand in.
const Field* FindShared(std::string_view key) {
  for (const Field& field : Fields()) {
    if (field.shared && field.key == key) return &field;
  }
  return nullptr;
}

absl::Status WrongType(const Field& field, absl::string_view wanted) {
  return absl::InvalidArgumentError(
      absl::StrCat("[", field.table, "] ", field.key, " must be ", wanted));
}

absl::Status Assign(const Field& field, const toml::node& node, RunConfig& config) {
  if (const auto* text = std::get_if<std::string RunConfig::*>(&field.target)) {
    const auto value = node.value_exact<std::string>();
    if (!value) return WrongType(field, "a string in quotes");
    config.*(*text) = *value;
  } else if (const auto* real = std::get_if<double RunConfig::*>(&field.target)) {
    const auto value = node.value<double>();
    if (!value || !node.is_number()) return WrongType(field, "a number");
    config.*(*real) = *value;
  } else if (const auto* whole = std::get_if<int64_t RunConfig::*>(&field.target)) {
    const auto value = node.value_exact<int64_t>();
    if (!value) return WrongType(field, "a whole number");
    config.*(*whole) = *value;
  } else if (const auto* flag = std::get_if<bool RunConfig::*>(&field.target)) {
    const auto value = node.value_exact<bool>();
    if (!value) return WrongType(field, "true or false");
    config.*(*flag) = *value;
  } else {
    auto& list = config.*std::get<std::vector<std::string> RunConfig::*>(field.target);
    list.clear();
    if (const auto one = node.value_exact<std::string>()) {
      list.push_back(*one);
      return absl::OkStatus();
    }
    const toml::array* array = node.as_array();
    if (array == nullptr) return WrongType(field, "a string or a list of strings");
    for (const toml::node& item : *array) {
      const auto value = item.value_exact<std::string>();
      if (!value) return WrongType(field, "a string or a list of strings");
      list.push_back(*value);
    }
  }
  return absl::OkStatus();
}

absl::Status Apply(const toml::table& root, RunConfig& config) {
  for (const auto& [table_key, table_node] : root) {
    const std::string table(table_key.str());
    const toml::table* entries = table_node.as_table();
    if (entries == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", table, "\" stands outside of a [table]", Suggestion("", table)));
    }
    const bool known = std::any_of(Fields().begin(), Fields().end(),
                                   [&](const Field& field) { return field.table == table; });
    if (!known) {
      return absl::InvalidArgumentError(
          absl::StrCat("there is no table [", table,
                       "]; the tables are [model] [data] [training] [federation] [border] [run]"));
    }
    for (const auto& [key_node, node] : *entries) {
      const std::string key(key_node.str());
      const Field* field = Find(table, key);
      if (field == nullptr) {
        return absl::InvalidArgumentError(
            absl::StrCat("[", table, "] has no key \"", key, "\"", Suggestion(table, key)));
      }
      PCMOE_RETURN_IF_ERROR(Assign(*field, node, config));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<toml::table> ParseToml(const std::string& text, const std::string& origin) {
  try {
    return toml::parse(text, origin);
  } catch (const toml::parse_error& error) {  // toml++ reports by exception only
    std::ostringstream place;
    place << error.source().begin;
    return absl::InvalidArgumentError(
        absl::StrCat(origin, ": ", std::string(error.description()), " (", place.str(), ")"));
  }
}

// "table.key=value"; a value that is not TOML by itself is taken as a string.
absl::Status Override(const std::string& text, RunConfig& config) {
  const size_t equals = text.find('=');
  const size_t dot = text.find('.');
  if (equals == std::string::npos || dot == std::string::npos || dot > equals) {
    return absl::InvalidArgumentError(
        absl::StrCat("--set ", text, ": write it as --set table.key=value"));
  }
  const std::string table = text.substr(0, dot);
  const std::string key = text.substr(dot + 1, equals - dot - 1);
  const std::string value = text.substr(equals + 1);
  const Field* field = Find(table, key);
  if (field == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("--set ", text, ": there is no such key", Suggestion(table, key)));
  }
  auto parsed = ParseToml(absl::StrCat("value = ", value), "--set");
  if (!parsed.ok()) parsed = ParseToml(absl::StrCat("value = '", value, "'"), "--set");
  PCMOE_RETURN_IF_ERROR(parsed.status());
  return Assign(*field, *parsed->get("value"), config);
}

std::string TextOf(const Field& field, const RunConfig& config) {
  if (const auto* text = std::get_if<std::string RunConfig::*>(&field.target)) {
    return config.*(*text);
  }
  if (const auto* real = std::get_if<double RunConfig::*>(&field.target)) {
    return absl::StrFormat("%.17g", config.*(*real));
  }
  if (const auto* whole = std::get_if<int64_t RunConfig::*>(&field.target)) {
    return absl::StrCat(config.*(*whole));
  }
  if (const auto* flag = std::get_if<bool RunConfig::*>(&field.target)) {
    return config.*(*flag) ? "true" : "false";
  }
  return absl::StrJoin(config.*std::get<std::vector<std::string> RunConfig::*>(field.target), ",");
}

absl::Status SetFromText(const Field& field, const std::string& text, RunConfig& config) {
  bool ok = true;
  if (const auto* string = std::get_if<std::string RunConfig::*>(&field.target)) {
    config.*(*string) = text;
  } else if (const auto* real = std::get_if<double RunConfig::*>(&field.target)) {
    ok = absl::SimpleAtod(text, &(config.*(*real)));
  } else if (const auto* whole = std::get_if<int64_t RunConfig::*>(&field.target)) {
    ok = absl::SimpleAtoi(text, &(config.*(*whole)));
  } else if (const auto* flag = std::get_if<bool RunConfig::*>(&field.target)) {
    ok = absl::SimpleAtob(text, &(config.*(*flag)));
  }
  if (ok) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the manifest's training.", field.key, " cannot be read"));
}

// On one line, with escapes: a line break right after the quotes of a literal string would be lost.
std::string Quoted(const std::string& text) {
  const toml::value<std::string> value(text);
  std::ostringstream out;
  out << toml::toml_formatter(value, toml::format_flags::allow_unicode_strings);
  return out.str();
}

// A value in a sentence: a string as the file has it, so that a line break can be read.
std::string Shown(const Field& field, const std::string& text) {
  return std::holds_alternative<std::string RunConfig::*>(field.target) ? Quoted(text) : text;
}

}  // namespace

data::DatasetOptions DatasetOptionsOf(const RunConfig& config, const text::Tokenizer& tokenizer) {
  return {.jsonl = {.column = config.text_column,
                    .label_column = config.label_column,
                    .label_separator = config.label_separator},
          .pack = {.sequence_length = static_cast<int32_t>(config.sequence_length),
                   .eos_id = tokenizer.EosId().value_or(-1)},
          .batching = config.batching == "packed" ? data::Batching::kPacked
                                                  : data::Batching::kGroupByLength,
          .loss_on_prompt = config.loss_on == "all"};
}

const std::vector<std::string>& SharedTrainingKeys() {
  static const std::vector<std::string> keys = [] {
    std::vector<std::string> shared;
    for (const Field& field : Fields()) {
      if (field.shared) shared.push_back(field.key);
    }
    return shared;
  }();
  return keys;
}

absl::StatusOr<RunConfig> LoadRunConfig(const std::filesystem::path& path,
                                        const std::vector<std::string>& overrides) {
  PCMOE_ASSIGN_OR_RETURN(const std::string text, base::ReadFile(path, 1 << 20));
  PCMOE_ASSIGN_OR_RETURN(const toml::table root, ParseToml(text, path.string()));
  RunConfig config;
  PCMOE_RETURN_IF_ERROR(WithContext(Apply(root, config), path.string()));
  for (const std::string& one : overrides) PCMOE_RETURN_IF_ERROR(Override(one, config));
  const std::filesystem::path folder = std::filesystem::absolute(path).parent_path();
  const auto resolve = [&folder](std::string& file) {
    if (!file.empty()) file = (folder / file).lexically_normal().string();
  };
  if (config.identity != "none") resolve(config.identity);
  for (std::string* file : {&config.model_name_or_path, &config.tokenizer, &config.output_dir,
                            &config.export_dir, &config.policy}) {
    resolve(*file);
  }
  if (config.placement != "round_robin") resolve(config.placement);
  for (std::string& file : config.train) resolve(file);
  for (std::string& file : config.eval) resolve(file);
  return config;
}

std::map<std::string, std::string> SharedTraining(const RunConfig& config) {
  std::map<std::string, std::string> shared;
  for (const Field& field : Fields()) {
    if (field.shared) shared[field.key] = TextOf(field, config);
  }
  return shared;
}

absl::StatusOr<std::vector<std::string>> SharedKeysSet(const std::filesystem::path& path) {
  PCMOE_ASSIGN_OR_RETURN(const std::string text, base::ReadFile(path, 1 << 20));
  PCMOE_ASSIGN_OR_RETURN(const toml::table root, ParseToml(text, path.string()));
  std::vector<std::string> keys;
  for (const Field& field : Fields()) {
    if (field.shared && root[field.table][field.key]) keys.push_back(field.key);
  }
  return keys;
}

absl::Status ApplySharedTraining(const std::map<std::string, std::string>& shared,
                                 const std::vector<std::string>& set_keys, RunConfig& config) {
  for (const auto& [key, value] : shared) {
    const Field* field = FindShared(key);
    if (field == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("the manifest has training.", key, ", which this version does not know"));
    }
    const bool set_here = std::find(set_keys.begin(), set_keys.end(), key) != set_keys.end();
    if (set_here && TextOf(*field, config) != value) {
      return absl::InvalidArgumentError(
          absl::StrCat("[", field->table, "] ", key, " is ", Shown(*field, TextOf(*field, config)),
                       " here, but the signed manifest says ", Shown(*field, value),
                       "; remove the line, or provision a new manifest"));
    }
    PCMOE_RETURN_IF_ERROR(SetFromText(*field, value, config));
  }
  return config.Validate();
}

std::string ToToml(const RunConfig& config, const std::vector<std::string>& tables,
                   bool with_shared) {
  const RunConfig unset;
  std::string text;
  for (const std::string& table : tables) {
    absl::StrAppend(&text, text.empty() ? "" : "\n", "[", table, "]\n");
    for (const Field& field : Fields()) {
      if (field.table != table || (field.shared && !with_shared)) continue;
      std::string value = TextOf(field, config);
      if (std::holds_alternative<std::string RunConfig::*>(field.target)) {
        if (value.empty() && TextOf(field, unset).empty()) continue;
        value = Quoted(value);
      } else if (const auto* list =
                     std::get_if<std::vector<std::string> RunConfig::*>(&field.target)) {
        if ((config.*(*list)).empty()) continue;
        value = absl::StrCat("[",
                             absl::StrJoin(config.*(*list), ", ",
                                           [](std::string* out, const std::string& item) {
                                             out->append(Quoted(item));
                                           }),
                             "]");
      }
      absl::StrAppend(&text, field.key, " = ", value, "\n");
    }
  }
  return text;
}

}  // namespace pcmoe::train
