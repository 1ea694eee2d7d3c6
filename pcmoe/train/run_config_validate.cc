// pcmoe/train/run_config_validate.cc: which settings go together, and what "auto" means
// (run_config.h).
#include <algorithm>
#include <initializer_list>
#include <utility>

#include "pcmoe/optim/schedule.h"
#include "pcmoe/train/run_config.h"

namespace pcmoe::train {
namespace {

bool IsOneOf(const std::string& value, std::initializer_list<const char*> values) {
  return std::find(values.begin(), values.end(), value) != values.end();
}

absl::Status ValidateFederation(const RunConfig& config) {
  const auto bad = [](absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat("[federation] ", what));
  };
  if (!IsOneOf(config.exchange, {"weights", "rows"})) {
    return bad("exchange must be \"weights\" or \"rows\"");
  }
  if (!IsOneOf(config.schedule, {"synchronous", "round_robin"})) {
    return bad("schedule must be \"synchronous\" or \"round_robin\"");
  }
  if (!IsOneOf(config.weights_on_wire, {"model", "int8"})) {
    return bad("weights_on_wire must be \"model\" or \"int8\"");
  }
  for (const auto& [key, value] : {std::pair{"backbone", &config.backbone},
                                   {"embedding", &config.embedding},
                                   {"head", &config.head}}) {
    if (IsOneOf(*value, {"auto", "frozen", "private", "aggregated"})) continue;
    return bad(absl::StrCat(key, " must be \"auto\", \"frozen\", \"private\" or \"aggregated\""));
  }
  if (config.exchange == "weights" && config.schedule == "round_robin") {
    return bad(
        "schedule \"round_robin\" needs exchange \"rows\": with \"weights\" the sum of a step "
        "would be "
        "one party's own gradient");
  }
  if (!(config.private_lr_scale <= 1)) {  // NaN is not, either
    return bad("private_lr_scale must be from 0 to 1, or negative for the default");
  }
  if (!(config.expert_lr_scale <= 100) || config.expert_lr_scale == 0) {
    return bad("expert_lr_scale must be above 0 and at most 100, or negative for the default");
  }
  const bool aggregates = config.backbone == "aggregated" || config.embedding == "aggregated" ||
                          config.head == "aggregated";
  if (config.exchange == "rows" && aggregates) {
    return bad("exchange \"rows\" leaves the backbone private; \"aggregated\" needs \"weights\"");
  }
  return absl::OkStatus();
}

// See RunConfig::expert_lr_scale; of a config whose backbone, embedding and head are resolved.
double ExpertLead(bool from_checkpoint, const RunConfig& config) {
  const bool like_central = config.backbone == "aggregated" && config.embedding == "aggregated" &&
                            config.head == "aggregated";
  if (!from_checkpoint || like_central) return 1;
  return config.backbone == "private" ? 3 : 2;
}

}  // namespace

absl::Status ResolveBackbone(bool from_checkpoint, bool tied, int64_t hidden_size,
                             RunConfig& config) {
  PCMOE_RETURN_IF_ERROR(ValidateFederation(config));
  const bool rows = config.exchange == "rows";
  if (config.backbone == "auto") config.backbone = rows ? "private" : "aggregated";
  const bool freeze = from_checkpoint && config.backbone != "private";
  if (config.embedding == "auto") config.embedding = freeze && !tied ? "frozen" : "private";
  if (config.head == "auto") config.head = tied ? config.embedding : "private";
  if (tied && config.head != config.embedding) {
    return absl::InvalidArgumentError(
        "[federation] this model's head is its embedding (tie_word_embeddings), so head and "
        "embedding "
        "must be set alike");
  }
  const bool own_backbone = from_checkpoint && config.backbone != "aggregated";
  if (config.private_lr_scale < 0) config.private_lr_scale = own_backbone ? 0.1 : 1.0;
  if (config.expert_lr_scale < 0) config.expert_lr_scale = ExpertLead(from_checkpoint, config);
  if (config.min_rows < 0) config.min_rows = rows ? 0 : 4 * hidden_size;
  return absl::OkStatus();
}

absl::Status RunConfig::Validate() const {
  const auto bad = [](absl::string_view what) { return absl::InvalidArgumentError(what); };
  PCMOE_RETURN_IF_ERROR(optim::ParseSchedulerType(lr_scheduler_type).status());
  if (model_name_or_path.empty()) return bad("[model] model_name_or_path is missing");
  if (!(learning_rate > 0 && learning_rate < 1e3))
    return bad("[training] learning_rate must be positive");
  if (max_steps < 1) return bad("[training] max_steps must be at least 1");
  if (warmup_steps < 0) return bad("[training] warmup_steps must not be negative");
  if (!(weight_decay >= 0)) return bad("[training] weight_decay must not be negative");
  if (!(adam_beta1 >= 0 && adam_beta1 < 1 && adam_beta2 >= 0 && adam_beta2 < 1)) {
    return bad("[training] adam_beta1 and adam_beta2 must be in [0, 1)");
  }
  if (!(adam_epsilon > 0)) return bad("[training] adam_epsilon must be positive");
  if (!(max_grad_norm >= 0)) return bad("[training] max_grad_norm must not be negative (0: off)");
  if (sequence_length < 2 || sequence_length > (1 << 20)) {
    return bad("[training] sequence_length must be from 2 to 1048576");
  }
  if (label_separator.size() > 1000) {  // what a manifest can hold
    return bad("[data] label_separator must be at most 1000 bytes long");
  }
  if (!IsOneOf(loss_on, {"completion", "all"})) {
    return bad("[data] loss_on must be \"completion\" or \"all\"");
  }
  if (!IsOneOf(batching, {"packed", "group_by_length"})) {
    return bad("[data] batching must be \"packed\" or \"group_by_length\"");
  }
  if (precision != "fp32" && precision != "bf16") {
    return bad("[training] precision must be \"fp32\" or \"bf16\"");
  }
  if (save_steps < 0 || eval_steps < 0 || logging_steps < 1) {
    return bad(
        "[training] save_steps and eval_steps must not be negative, logging_steps at least 1");
  }
  if (!IsOneOf(metric_for_best_model, {"", "eval_loss", "eval_accuracy"})) {
    return bad("[training] metric_for_best_model must be \"eval_loss\" or \"eval_accuracy\"");
  }
  if (early_stopping_patience < 0 ||
      (early_stopping_patience > 0 && (metric_for_best_model.empty() || eval_steps == 0))) {
    return bad(
        "[training] early_stopping_patience needs metric_for_best_model and eval_steps, and must "
        "not be negative");
  }
  if (seed < 0) return bad("[training] seed must not be negative");
  if (per_device_train_batch_size < 1 || gradient_accumulation_steps < 1 ||
      gradient_accumulation_steps > 4096) {
    return bad(
        "[training] per_device_train_batch_size and gradient_accumulation_steps must be at least "
        "1");
  }
  if (num_threads < 1 || num_threads > 1024)
    return bad("[training] num_threads must be from 1 to 1024");
  if (save_total_limit < 1) return bad("[training] save_total_limit must be at least 1");
  PCMOE_RETURN_IF_ERROR(ValidateFederation(*this));
  if (on_peer_loss != "wait" && on_peer_loss != "stop") {
    return bad("[run] on_peer_loss must be \"wait\" or \"stop\"");
  }
  if (resume_from_checkpoint != "auto" && resume_from_checkpoint != "never") {
    return bad("[run] resume_from_checkpoint must be \"auto\" or \"never\"");
  }
  if (!(peer_timeout_s >= 1) || !(keepalive_s >= 1) || !(rendezvous_timeout_s >= 1)) {
    return bad("[run] peer_timeout_s, keepalive_s and rendezvous_timeout_s must be at least 1");
  }
  return absl::OkStatus();
}

}  // namespace pcmoe::train
