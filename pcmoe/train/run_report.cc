// pcmoe/train/run_report.cc: see run_report.h.
#include "pcmoe/train/run_report.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_format.h"
#include "pcmoe/base/file.h"
#include "pcmoe/base/log.h"

namespace pcmoe::train {
namespace {

using Json = nlohmann::ordered_json;

std::string Duration(double seconds) {
  const auto whole = static_cast<int64_t>(seconds + 0.5);
  if (whole >= 3600) return absl::StrFormat("%dh%02dm", whole / 3600, whole / 60 % 60);
  return absl::StrFormat("%dm%02ds", whole / 60, whole % 60);
}

// By transformers' names; accuracy only where there are labels.
Json JsonOf(const eval::EvalResult& result) {
  Json json{{"eval_loss", result.Loss()}, {"eval_tokens", result.loss_tokens}};
  if (!result.accuracy) return json;
  const eval::Accuracy& accuracy = *result.accuracy;
  json["eval_accuracy"] = accuracy.Share(accuracy.right);
  json["eval_accuracy_norm"] = accuracy.Share(accuracy.right_normalised);
  json["eval_examples"] = accuracy.examples;
  return json;
}

}  // namespace

absl::StatusOr<RunReport> RunReport::Create(const std::filesystem::path& output_dir,
                                            int64_t max_steps, int64_t logging_steps, bool print) {
  RunReport report;
  report.output_dir_ = output_dir;
  report.max_steps_ = max_steps;
  report.logging_steps_ = logging_steps;
  report.print_ = print;
  PCMOE_RETURN_IF_ERROR(base::CreateFolder(output_dir, 0700));
  const std::filesystem::path path = output_dir / "metrics.jsonl";
  report.file_ = std::fopen(path.c_str(), "ae");
  if (report.file_ == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat(path.string(), ": cannot be written"));
  }
  PCMOE_ASSIGN_OR_RETURN(report.events_, EventFile::Create(output_dir / "runs"));
  return report;
}

RunReport::RunReport(RunReport&& other) noexcept
    : output_dir_(std::move(other.output_dir_)),
      file_(std::exchange(other.file_, nullptr)),
      events_(std::move(other.events_)),
      max_steps_(other.max_steps_),
      logging_steps_(other.logging_steps_),
      print_(other.print_) {}

RunReport::~RunReport() {
  if (file_ != nullptr) std::fclose(file_);
}

void RunReport::Write(const std::string& line) {
  std::fputs((line + "\n").c_str(), file_);
  std::fflush(file_);
}

void RunReport::Step(const StepRecord& record) {
  // The first step of a process pays for warm-up; it is not in the speed.
  if (seen_steps_++ > 0) {
    seconds_ += record.step_s;
    tokens_ += static_cast<double>(record.input_tokens);
    ++timed_steps_;
  }
  if (record.step % logging_steps_ != 0 && record.step != max_steps_) return;
  Remember({record.step,
            {{"loss", record.loss},
             {"grad_norm", record.grad_norm},
             {"learning_rate", record.learning_rate},
             {"epoch", record.epoch}}});
  Json json{{"step", record.step},
            {"epoch", record.epoch},
            {"loss", record.loss},
            {"grad_norm", record.grad_norm},
            {"learning_rate", record.learning_rate},
            {"aux_loss", record.aux_loss},
            {"num_tokens", record.tokens},
            {"num_input_tokens", record.input_tokens},
            {"federation_tokens", record.federation_tokens},
            {"step_s", record.step_s},
            {"sent_bytes", record.sent_bytes},
            {"rows_sent", record.rows_sent},
            {"slowest_party", record.slowest_party},
            {"slowest_wait_s", record.slowest_wait_s},
            {"expert_load", record.load_le}};
  Write(json.dump());
  if (!print_) return;
  const double step_s = timed_steps_ > 0 ? seconds_ / static_cast<double>(timed_steps_) : 0;
  base::LogInfo(absl::StrFormat(
      "step %d/%d loss %.4f lr %.2e grad %.3f | %.0f tokens/s | ETA %s | %.2f MB a step%s",
      record.step, max_steps_, record.loss, record.learning_rate, record.grad_norm,
      seconds_ > 0 ? tokens_ / seconds_ : 0.0,
      Duration(step_s * static_cast<double>(max_steps_ - record.step)),
      static_cast<double>(record.sent_bytes) / 1e6,
      record.slowest_party.empty() ? ""
                                   : absl::StrFormat(" | waited %.2fs for %s",
                                                     record.slowest_wait_s, record.slowest_party)));
}

void RunReport::Evaluation(int64_t step, const std::string& name, const eval::EvalResult& result) {
  last_eval_[name] = result;
  Json json{{"step", step}, {"eval", name}};
  json.update(JsonOf(result));
  Write(json.dump());
  if (!print_) return;
  base::LogInfo(absl::StrFormat(
      "step %d eval_loss %.4f%s (%s)", step, result.Loss(),
      result.accuracy
          ? absl::StrFormat(" eval_accuracy %.4f", result.accuracy->Share(result.accuracy->right))
          : "",
      name));
}

void RunReport::MeanEvaluation(int64_t step, const eval::EvalResult& result) {
  std::erase_if(history_, [step](const LogEntry& entry) {
    return entry.step == step && entry.values.contains("eval_loss");
  });
  LogEntry entry{
      step,
      {{"eval_loss", result.Loss()}, {"eval_tokens", static_cast<double>(result.loss_tokens)}}};
  if (result.accuracy) {
    entry.values["eval_accuracy"] = result.accuracy->Share(result.accuracy->right);
  }
  Remember(std::move(entry));
}

namespace {

std::string MeanKey(const std::string& metric) { return absl::StrCat("federation_", metric); }

}  // namespace

void RunReport::FederationMean(int64_t step, const std::string& metric, double value) {
  const std::string key = MeanKey(metric);
  std::erase_if(history_, [&](const LogEntry& entry) {
    return entry.step == step && entry.values.contains(key);
  });
  Write(Json{{"step", step}, {key, value}}.dump());
  if (print_) base::LogInfo(absl::StrFormat("step %d %s %.4f", step, key, value));
  Remember({step, {{key, value}}});
}

std::optional<BestStep> RunReport::Best(const std::string& metric) const {
  std::optional<BestStep> best;
  const double sign = metric == "eval_loss" ? -1 : 1;
  for (const LogEntry& entry : history_) {
    const auto found = entry.values.find(MeanKey(metric));
    if (found == entry.values.end()) continue;
    if (!best || sign * found->second > sign * best->value) {
      best = BestStep{.step = entry.step, .value = found->second};
    } else {
      ++best->evaluations_after;
    }
  }
  return best;
}

void RunReport::Remember(LogEntry entry) {
  std::map<std::string, double> scalars;
  for (const auto& [name, value] : entry.values) scalars[TagOf(name)] = value;
  events_->Scalars(entry.step, scalars);
  history_.push_back(std::move(entry));
  if (history_.size() > kMaxLogEntries) history_.erase(history_.begin());
}

void RunReport::Note(const std::string& event, const std::string& detail) {
  Write(Json{{"event", event}, {"detail", detail}}.dump());
}

void RunReport::Start(int64_t step, uint32_t attempt) {
  Write(Json{{"event", "start"},
             {"detail", absl::StrCat("step ", step, " attempt ", attempt)},
             {"step", step}}
            .dump());
  events_->GoOnFrom(step);
}

absl::Status RunReport::Finish(int64_t steps, uint64_t sent_bytes, uint64_t states_bytes,
                               uint64_t peak_allocated_bytes, const std::optional<BestStep>& best) {
  Json json{{"global_step", steps},
            {"tokens_per_s", seconds_ > 0 ? tokens_ / seconds_ : 0.0},
            {"timed_steps", timed_steps_},
            {"sent_bytes", sent_bytes},
            {"states_bytes", states_bytes},
            {"peak_allocated_bytes", peak_allocated_bytes},
            {"peak_resident_bytes", PeakResidentBytes()},
            {"eval", Json::object()}};
  if (best) json["best"] = {{"step", best->step}, {"federation_mean", best->value}};
  for (const auto& [name, result] : last_eval_) {
    json["eval"][name] = JsonOf(result);
  }
  return base::WriteFileAtomically(output_dir_ / "result.json", json.dump(2) + "\n");
}

uint64_t PeakResidentBytes() {
  std::ifstream status("/proc/self/status");
  std::string word;
  while (status >> word) {
    if (word != "VmHWM:") continue;
    uint64_t kilobytes = 0;
    status >> kilobytes;
    return kilobytes * 1024;
  }
  return 0;
}

}  // namespace pcmoe::train
