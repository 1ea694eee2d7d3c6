// pcmoe/train/trainer.cc: see trainer.h.
#include "pcmoe/train/trainer.h"

#include <algorithm>
#include <cmath>

#include "pcmoe/base/log.h"
#include "pcmoe/eval/batches.h"
#include "pcmoe/federation/schedule.h"
#include "pcmoe/optim/schedule.h"
#include "pcmoe/tensor/memory.h"
#include "pcmoe/train/rendezvous.h"

namespace pcmoe::train {
namespace {

// A deterministic failure comes back however often the step is run again.
constexpr int64_t kMaxFailuresInARow = 5;
constexpr size_t kEvalMicroBatchesAtOnce = 8;

}  // namespace

Trainer::Trainer(TrainerParts parts) : parts_(std::move(parts)), farewell_(parts_.session) {}

bool Trainer::Due(int64_t every) const {
  return step_ == parts_.config.max_steps || (every > 0 && step_ % every == 0);
}

double Trainer::BalanceCoef() const {
  if (parts_.config.router_aux_loss_coef >= 0) return parts_.config.router_aux_loss_coef;
  const model::ModelConfig& config = parts_.model.config();
  return config.output_router_logits ? config.router_aux_loss_coef : 0.0;
}

std::vector<data::Cursor> Trainer::Cursors() const {
  std::vector<data::Cursor> cursors;
  for (const data::BatchSource& source : parts_.sources) cursors.push_back(source.cursor());
  return cursors;
}

double Trainer::Epoch() const {
  for (const data::BatchSource& source : parts_.sources) {
    if (source.empty()) continue;
    const data::Cursor cursor = source.cursor();
    return static_cast<double>(cursor.epoch) +
           static_cast<double>(cursor.position) / static_cast<double>(source.size());
  }
  return 0;
}

absl::Status Trainer::Seek(const std::vector<data::Cursor>& cursors) {
  for (size_t i = 0; i < parts_.sources.size(); ++i) {
    const data::Cursor cursor = i < cursors.size() ? cursors[i] : data::Cursor{};
    PCMOE_RETURN_IF_ERROR(parts_.sources[i].Seek(cursor));
  }
  return absl::OkStatus();
}

std::vector<model::MicroBatch> Trainer::NextBatches() {
  const RunConfig& config = parts_.config;
  std::vector<model::MicroBatch> batches;
  const bool my_turn = config.schedule != "round_robin" ||
                       federation::ActiveParty(parts_.schedule_seed, static_cast<uint64_t>(step_),
                                               parts_.session.parties()) == parts_.session.self();
  if (!my_turn) return batches;
  for (data::BatchSource& source : parts_.sources) {
    if (source.empty()) continue;
    const int64_t wanted = config.per_device_train_batch_size * config.gradient_accumulation_steps;
    const std::vector<const data::Sequence*> sequences = source.Next(wanted);
    for (int64_t m = 0; m < config.gradient_accumulation_steps; ++m) {
      batches.push_back(eval::ToMicroBatch(
          std::span(sequences).subspan(static_cast<size_t>(m * config.per_device_train_batch_size),
                                       static_cast<size_t>(config.per_device_train_batch_size))));
    }
  }
  return batches;
}

bool Trainer::CompleteOnDisk() const {
  const std::vector<int64_t> held = parts_.checkpoints.Steps();
  return step_ < 0 && !held.empty() && held.back() == parts_.config.max_steps;
}

// A party that was started again after its run had ended stays a while for others that may need it.
absl::Duration Trainer::RendezvousTimeout() const {
  return absl::Seconds(
      CompleteOnDisk() ? std::min(parts_.config.peer_timeout_s, parts_.config.rendezvous_timeout_s)
                       : parts_.config.rendezvous_timeout_s);
}

absl::Status Trainer::MeetAndRestore() {
  Standing standing{
      .checkpoint_steps = parts_.checkpoints.Steps(),
      .memory_step = step_,
      .intent = parts_.model_export != nullptr ? Intent::kTrainAndExport : Intent::kTrain};
  Meeting meeting{.step = standing.checkpoint_steps.empty() ? 0 : standing.checkpoint_steps.back()};
  if (parts_.session.parties() > 1) {
    auto met = Meet(parts_.session, standing, RendezvousTimeout(), parts_.interrupted,
                    [](const std::string& line) { base::LogInfo(line); });
    if (absl::IsFailedPrecondition(met.status())) {  // nobody leaves before all have found it out
      const absl::Status ignored = farewell_.Say(0, parts_.session.attempt());
    }
    PCMOE_ASSIGN_OR_RETURN(meeting, std::move(met));
  }
  attempt_ = meeting.attempt;
  parts_.experts.Reset();
  parts_.model.backbone().ResetGradients();
  if (meeting.step == step_) return absl::OkStatus();
  const auto& held = standing.checkpoint_steps;
  if (std::find(held.begin(), held.end(), meeting.step) != held.end()) {
    PCMOE_ASSIGN_OR_RETURN(const TrainerState state,
                           parts_.checkpoints.Load(meeting.step, parts_.model, parts_.experts));
    PCMOE_RETURN_IF_ERROR(Seek(state.cursors));
    parts_.report.SetHistory(state.log_history);
    base::LogInfo(absl::StrCat("going on from checkpoint-", meeting.step));
  } else {
    PCMOE_RETURN_IF_ERROR(parts_.model.Restart());
    PCMOE_RETURN_IF_ERROR(parts_.experts.LoadState({}, 0));
    PCMOE_RETURN_IF_ERROR(Seek({}));
    parts_.report.SetHistory({});
    if (step_ >= 0 || !held.empty()) base::LogInfo("going on from the start");
  }
  step_ = meeting.step;
  parts_.report.Start(step_, attempt_);
  return parts_.checkpoints.RemoveAfter(step_);
}

absl::Status Trainer::RunOneStep() {
  const absl::Time begin = absl::Now();
  const uint64_t sent_before = parts_.session.sent_bytes();
  const std::vector<int64_t> held = parts_.checkpoints.Steps();
  StepPlan plan{.step = step_,
                .attempt = attempt_,
                .max_grad_norm = parts_.config.max_grad_norm,
                .balance_coef = BalanceCoef(),
                .durable_step = held.empty() ? 0 : held.back()};
  PCMOE_ASSIGN_OR_RETURN(const auto type,
                         optim::ParseSchedulerType(parts_.config.lr_scheduler_type));
  plan.learning_rate =
      parts_.config.learning_rate *
      optim::LearningRateFactor(type, step_, parts_.config.warmup_steps, parts_.config.max_steps);
  const std::vector<data::Cursor> cursors = Cursors();
  const std::vector<model::MicroBatch> batches = NextBatches();
  if (parts_.batches_observer) parts_.batches_observer(step_, batches);
  const auto report = RunStep(plan, batches, parts_.session, parts_.experts, parts_.model);
  if (!report.ok()) {
    PCMOE_RETURN_IF_ERROR(Seek(cursors));  // the same batch again
    return report.status();
  }
  ++step_;
  failures_in_a_row_ = 0;
  if (parts_.gate != nullptr) PCMOE_RETURN_IF_ERROR(parts_.gate->SyncLedger());
  PCMOE_RETURN_IF_ERROR(parts_.checkpoints.Prune(report->common_durable_step, BestStepOr(-1)));

  StepRecord record{.step = step_,
                    .epoch = Epoch(),
                    .grad_norm = report->grad_norm,
                    .learning_rate = plan.learning_rate,
                    .aux_loss = report->own.balance_loss,
                    .tokens = report->own.loss_tokens,
                    .federation_tokens = report->federation_tokens,
                    .load_le = report->own.load_le};
  for (const model::MicroBatch& batch : batches) record.input_tokens += batch.tokens_bs.numel();
  if (record.tokens > 0) record.loss = report->own.loss_sum / static_cast<double>(record.tokens);
  record.sent_bytes = parts_.session.sent_bytes() - sent_before;
  const std::vector<double> waits = parts_.session.TakeWaits();
  const auto slowest = std::max_element(waits.begin(), waits.end());
  if (slowest != waits.end() && *slowest > 0) {
    record.slowest_party = parts_.session.NameOf(static_cast<int>(slowest - waits.begin()));
    record.slowest_wait_s = *slowest;
  }
  const model::ExpertProvider::Figures figures = parts_.experts.TakeFigures();
  record.rows_sent = figures.rows_sent;
  transient_bytes_ = std::max(transient_bytes_, figures.transient_bytes);
  record.step_s = absl::ToDoubleSeconds(absl::Now() - begin);
  parts_.report.Step(record);
  return absl::OkStatus();
}

absl::Status Trainer::Evaluate() {
  if (evaluated_step_ == step_) return absl::OkStatus();
  PCMOE_ASSIGN_OR_RETURN(const auto results, RunEvaluation(step_ - 1, attempt_, parts_.eval_sets,
                                                           kEvalMicroBatchesAtOnce, parts_.session,
                                                           parts_.experts, parts_.model));
  eval::EvalResult mean;
  for (size_t i = 0; i < results.size(); ++i) {
    if (results[i].loss_tokens == 0) continue;
    mean.loss_sum += results[i].loss_sum;
    mean.loss_tokens += results[i].loss_tokens;
    if (results[i].accuracy) {
      if (!mean.accuracy) mean.accuracy.emplace();
      mean.accuracy->examples += results[i].accuracy->examples;
      mean.accuracy->right += results[i].accuracy->right;
    }
    parts_.report.Evaluation(step_, parts_.eval_names[i], results[i]);
  }
  if (mean.loss_tokens > 0) parts_.report.MeanEvaluation(step_, mean);
  if (!parts_.config.metric_for_best_model.empty()) PCMOE_RETURN_IF_ERROR(ShareMean(mean));
  evaluated_step_ = step_;
  parts_.session.TakeWaits();
  return absl::OkStatus();
}

absl::Status Trainer::ShareMean(const eval::EvalResult& own) {
  std::optional<double> value;
  if (parts_.config.metric_for_best_model == "eval_loss") {
    if (own.loss_tokens > 0) value = own.Loss();
  } else if (own.accuracy) {
    value = own.accuracy->Share(own.accuracy->right);
  }
  PCMOE_ASSIGN_OR_RETURN(const std::optional<double> mean, ShareMetric(value, parts_.session));
  if (mean) parts_.report.FederationMean(step_, parts_.config.metric_for_best_model, *mean);
  return absl::OkStatus();
}

std::optional<BestStep> Trainer::Best() const {
  const std::string& metric = parts_.config.metric_for_best_model;
  return metric.empty() ? std::nullopt : parts_.report.Best(metric);
}

int64_t Trainer::BestStepOr(int64_t none) const {
  const std::optional<BestStep> best = Best();
  return best ? best->step : none;
}

// From the history, which a checkpoint keeps: a run that goes on decides as if it had not stopped.
bool Trainer::StoppedEarly() const {
  const int64_t patience = parts_.config.early_stopping_patience;
  const std::optional<BestStep> best = Best();
  return patience > 0 && best && best->evaluations_after >= patience;
}

absl::Status Trainer::SaveIfDue() {
  // The best one so far, and the last one of a run that stops early, are due, too.
  const bool best = evaluated_step_ == step_ && BestStepOr(-1) == step_;
  if (!Due(parts_.config.save_steps) && !best && !StoppedEarly()) return absl::OkStatus();
  const std::vector<int64_t> held = parts_.checkpoints.Steps();
  if (!held.empty() && held.back() == step_) return absl::OkStatus();
  return parts_.checkpoints.Save({.global_step = step_,
                                  .cursors = Cursors(),
                                  .epoch = Epoch(),
                                  .max_steps = parts_.config.max_steps,
                                  .log_history = parts_.report.history()},
                                 parts_.model, parts_.experts);
}

absl::Status Trainer::RunSteps() {
  if (step_ > 0 && Due(parts_.config.eval_steps)) PCMOE_RETURN_IF_ERROR(Evaluate());
  while (step_ < parts_.config.max_steps && !StoppedEarly()) {
    if (parts_.interrupted && parts_.interrupted()) {
      return absl::CancelledError("interrupted by a signal");
    }
    PCMOE_RETURN_IF_ERROR(RunOneStep());
    if (Due(parts_.config.eval_steps)) PCMOE_RETURN_IF_ERROR(Evaluate());
    PCMOE_RETURN_IF_ERROR(SaveIfDue());
  }
  if (StoppedEarly()) {
    base::LogInfo(absl::StrCat("stopped early after step ", step_, ": no better ",
                               parts_.config.metric_for_best_model, " since step ",
                               BestStepOr(step_)));
  }
  if (const std::optional<BestStep> best = Best(); best && best->step != step_) {
    base::LogInfo(absl::StrCat("the best ", parts_.config.metric_for_best_model, ", ", best->value,
                               ", was at step ", best->step,
                               ": its checkpoint is kept, and pcmoe export --step ", best->step,
                               " makes a model of it"));
  }
  if (parts_.model_export != nullptr) {
    PCMOE_RETURN_IF_ERROR(parts_.model_export->Fetch(step_, attempt_));
  }
  // Nobody leaves before everybody's last checkpoint is durable.
  return farewell_.Say(step_, attempt_);
}

// Decides what follows a failed attempt: OK to meet again, or the error that ends the run.
absl::Status Trainer::Recover(const absl::Status& failure) {
  const auto who = exchange::FailureIn(failure);
  const auto self = parts_.session.self();
  parts_.report.Note("failure", std::string(failure.message()));
  parts_.session.TellAbort(
      who.value_or(exchange::Failure{self, exchange::AbortReason::kLocalError}));
  using exchange::AbortReason;
  const bool bad_message = who && who->reason == AbortReason::kBadMessage;
  if (!who || who->reason == AbortReason::kNotFinite || (bad_message && who->culprit == self)) {
    return failure;
  }
  if (bad_message) parts_.session.Drop(who->culprit, failure);
  if (parts_.config.on_peer_loss == "stop") return failure;
  if (++failures_in_a_row_ > kMaxFailuresInARow) {
    return WithContext(failure, absl::StrCat("step ", step_ + 1, " failed ", failures_in_a_row_,
                                             " times in a row"));
  }
  base::LogWarning(absl::StrCat(std::string(failure.message()),
                                "; nothing of this step was changed, meeting again"));
  return absl::OkStatus();
}

absl::Status Trainer::Run() {
  PCMOE_RETURN_IF_ERROR(parts_.checkpoints.Open());
  if (parts_.config.resume_from_checkpoint == "never" && !parts_.checkpoints.Steps().empty()) {
    return absl::FailedPreconditionError(
        "[run] resume_from_checkpoint is \"never\", but output_dir holds checkpoints; choose "
        "another");
  }
  while (true) {
    const absl::Status met = MeetAndRestore();
    if (absl::IsDeadlineExceeded(met) && CompleteOnDisk()) {
      if (parts_.model_export != nullptr && !parts_.model_export->Done(parts_.config.max_steps)) {
        return WithContext(met,
                           "the run is complete but for this party's export; let every party run "
                           "pcmoe export");
      }
      base::LogInfo(absl::StrCat("the run was complete already: checkpoint-",
                                 parts_.config.max_steps, "; nobody else came"));
      return absl::OkStatus();
    }
    PCMOE_RETURN_IF_ERROR(met);
    const absl::Status status = RunSteps();
    if (status.ok()) break;
    PCMOE_RETURN_IF_ERROR(Recover(status));
  }
  parts_.experts.Reset();
  // Everybody's last checkpoint is durable now, and what was sent is on the wire once this returns.
  PCMOE_RETURN_IF_ERROR(parts_.checkpoints.Prune(step_, BestStepOr(-1)));
  parts_.session.Close();
  if (parts_.model_export != nullptr) PCMOE_RETURN_IF_ERROR(parts_.model_export->Finish());
  return parts_.report.Finish(
      step_, parts_.session.sent_bytes(),
      tensor::AllocatedBytes() - parts_.baseline_bytes + static_cast<uint64_t>(transient_bytes_),
      tensor::PeakAllocatedBytes() - parts_.baseline_bytes, Best());
}

}  // namespace pcmoe::train
