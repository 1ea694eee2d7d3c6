// pcmoe/cli/sim_compare.cc: see sim_compare.h.
#include "pcmoe/cli/sim_compare.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"
#include "pcmoe/base/file.h"

namespace pcmoe::cli {
namespace {

using Json = nlohmann::ordered_json;

// Below it two losses are called equal: seeds alone move them more.
constexpr double kEqualNats = 0.005;

absl::Status NotAResult(const std::filesystem::path& path, absl::string_view key) {
  return absl::InvalidArgumentError(
      absl::StrCat(path.string(), ": has no ", key, "; the run did not end as it should"));
}

absl::StatusOr<double> NumberAt(const Json& json, const char* key,
                                const std::filesystem::path& path) {
  const auto found = json.find(key);
  if (found == json.end() || !found->is_number()) return NotAResult(path, key);
  return found->get<double>();
}

// Adds what one process evaluated for `party`: the mean over its files, by tokens.
absl::Status AddEvaluation(const SimPlan& plan, const std::string& party, const Json& evaluations,
                           const std::filesystem::path& path, SimOutcome& outcome) {
  double sum = 0;
  double right = 0;
  double examples = 0;
  int64_t tokens = 0;
  for (const std::string& file : ConfigOf(plan, party).eval) {
    const auto found = evaluations.find(file);
    if (found == evaluations.end()) continue;  // a file without a token to evaluate
    PCMOE_ASSIGN_OR_RETURN(const double loss, NumberAt(*found, "eval_loss", path));
    PCMOE_ASSIGN_OR_RETURN(const double count, NumberAt(*found, "eval_tokens", path));
    sum += loss * count;
    tokens += static_cast<int64_t>(count);
    if (!found->contains("eval_accuracy")) continue;
    PCMOE_ASSIGN_OR_RETURN(const double accuracy, NumberAt(*found, "eval_accuracy", path));
    PCMOE_ASSIGN_OR_RETURN(const double rows, NumberAt(*found, "eval_examples", path));
    right += accuracy * rows;
    examples += rows;
  }
  if (examples > 0) outcome.eval_accuracy[party] = right / examples;
  if (tokens == 0) return absl::OkStatus();
  outcome.eval_loss[party] = sum / static_cast<double>(tokens);
  outcome.eval_tokens[party] = tokens;
  return absl::OkStatus();
}

absl::Status AddProcess(const SimPlan& plan, const SimProcess& process, SimOutcome& outcome) {
  const std::filesystem::path path = process.output_dir / "result.json";
  PCMOE_ASSIGN_OR_RETURN(const std::string text, base::ReadFile(path, 1 << 24));
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("eval") || !json["eval"].is_object()) {
    return NotAResult(path, "eval");
  }
  const auto largest = [&](const char* key, uint64_t& target) -> absl::Status {
    PCMOE_ASSIGN_OR_RETURN(const double value, NumberAt(json, key, path));
    target = std::max(target, static_cast<uint64_t>(value));
    return absl::OkStatus();
  };
  PCMOE_RETURN_IF_ERROR(largest("states_bytes", outcome.states_bytes));
  PCMOE_RETURN_IF_ERROR(largest("peak_allocated_bytes", outcome.allocated_bytes));
  PCMOE_RETURN_IF_ERROR(largest("peak_resident_bytes", outcome.resident_bytes));
  PCMOE_ASSIGN_OR_RETURN(const double sent, NumberAt(json, "sent_bytes", path));
  PCMOE_ASSIGN_OR_RETURN(const double speed, NumberAt(json, "tokens_per_s", path));
  outcome.sent_bytes += static_cast<uint64_t>(sent);
  outcome.tokens_per_s += speed;
  for (const std::string& party : process.evaluates) {
    PCMOE_RETURN_IF_ERROR(AddEvaluation(plan, party, json["eval"], path, outcome));
  }
  return absl::OkStatus();
}

std::string Bytes(uint64_t bytes) {
  if (bytes == 0) return "-";
  return absl::StrFormat("%.1f MB", static_cast<double>(bytes) / 1e6);
}

std::string Loss(const SimOutcome& outcome, const std::string& party) {
  const auto found = outcome.eval_loss.find(party);
  return found == outcome.eval_loss.end() ? "-" : absl::StrFormat("%.4f", found->second);
}

std::string LossVerdict(const SimOutcome& ours, const SimOutcome& other) {
  const double gap = other.MeanEvalLoss() - ours.MeanEvalLoss();
  const std::string numbers = absl::StrFormat("mean eval loss %.4f against %.4f",
                                              ours.MeanEvalLoss(), other.MeanEvalLoss());
  std::string verdict;
  if (std::abs(gap) < kEqualNats) {
    verdict =
        absl::StrFormat("pcmoe equals %s within %.3f nats (%s)", other.name, kEqualNats, numbers);
  } else {
    verdict = absl::StrFormat("pcmoe %s %s by %.3f nats (%s)", gap > 0 ? "beats" : "loses to",
                              other.name, std::abs(gap), numbers);
  }
  std::string worse;
  for (const auto& [party, loss] : ours.eval_loss) {
    const auto found = other.eval_loss.find(party);
    if (found == other.eval_loss.end() || loss <= found->second) continue;
    absl::StrAppend(&worse, worse.empty() ? "" : ", ", party);
  }
  if (gap > 0 && !worse.empty()) absl::StrAppend(&verdict, ", but not for ", worse);
  return verdict + ".";
}

std::string MemoryVerdict(const SimOutcome& ours, const SimOutcome& other) {
  const auto percent = [](uint64_t a, uint64_t b) {
    return 100.0 * (1.0 - static_cast<double>(a) / static_cast<double>(std::max<uint64_t>(b, 1)));
  };
  const double states = percent(ours.states_bytes, other.states_bytes);
  const double resident = percent(ours.resident_bytes, other.resident_bytes);
  return absl::StrFormat(
      "Against %s a party holds %.1f %% %s states and its process peaks at %.1f %% %s resident "
      "memory.",
      other.name, std::abs(states), states >= 0 ? "less of" : "more of", std::abs(resident),
      resident >= 0 ? "less" : "more");
}

}  // namespace

double SimOutcome::MeanEvalLoss() const {
  double sum = 0;
  for (const auto& [party, loss] : eval_loss) sum += loss;
  return eval_loss.empty() ? std::nan("") : sum / static_cast<double>(eval_loss.size());
}

absl::StatusOr<SimOutcome> ReadOutcome(const SimPlan& plan, const SimRun& run) {
  SimOutcome outcome{.name = run.name, .steps = run.steps};
  for (const SimProcess& process : run.processes) {
    PCMOE_RETURN_IF_ERROR(AddProcess(plan, process, outcome));
  }
  return outcome;
}

std::string TableOf(const std::vector<SimOutcome>& outcomes,
                    const std::vector<std::string>& parties) {
  std::string text = "Evaluation loss (nats a token) by party; memory of the largest process.\n";
  absl::StrAppendFormat(&text, "%-15s", "");
  for (const std::string& party : parties) absl::StrAppendFormat(&text, " %8s", party);
  absl::StrAppendFormat(&text, " %8s %12s %12s %12s %9s\n", "mean", "states", "peak RSS", "sent",
                        "tokens/s");
  for (const SimOutcome& outcome : outcomes) {
    absl::StrAppendFormat(&text, "%-15s", outcome.name);
    for (const std::string& party : parties)
      absl::StrAppendFormat(&text, " %8s", Loss(outcome, party));
    absl::StrAppendFormat(
        &text, " %8s %12s %12s %12s %9.0f\n",
        outcome.eval_loss.empty() ? "-" : absl::StrFormat("%.4f", outcome.MeanEvalLoss()),
        Bytes(outcome.states_bytes), Bytes(outcome.resident_bytes), Bytes(outcome.sent_bytes),
        outcome.tokens_per_s);
  }
  if (std::all_of(outcomes.begin(), outcomes.end(),
                  [](const SimOutcome& outcome) { return outcome.eval_accuracy.empty(); })) {
    return text;
  }
  absl::StrAppend(&text, "Accuracy on rows with a label, in %.\n");
  for (const SimOutcome& outcome : outcomes) {
    absl::StrAppendFormat(&text, "%-15s", outcome.name);
    double sum = 0;
    for (const std::string& party : parties) {
      const auto found = outcome.eval_accuracy.find(party);
      sum += found == outcome.eval_accuracy.end() ? 0 : found->second;
      absl::StrAppendFormat(&text, " %8s",
                            found == outcome.eval_accuracy.end()
                                ? "-"
                                : absl::StrFormat("%.2f", 100 * found->second));
    }
    const auto count = static_cast<double>(std::max<size_t>(outcome.eval_accuracy.size(), 1));
    absl::StrAppendFormat(&text, " %8.2f\n", 100 * sum / count);
  }
  return text;
}

std::vector<std::string> VerdictsOf(const std::vector<SimOutcome>& outcomes) {
  std::vector<std::string> verdicts;
  const auto ours = std::find_if(outcomes.begin(), outcomes.end(), [](const SimOutcome& outcome) {
    return outcome.name == "federated";
  });
  if (ours == outcomes.end()) return verdicts;
  for (const SimOutcome& other : outcomes) {
    if (&other == &*ours) continue;
    if (!ours->eval_loss.empty() && !other.eval_loss.empty()) {
      verdicts.push_back(LossVerdict(*ours, other));
    }
  }
  for (const SimOutcome& other : outcomes) {
    if (other.name != "central") continue;
    verdicts.push_back(MemoryVerdict(*ours, other));
    const double ratio = ours->tokens_per_s / std::max(other.tokens_per_s, 1e-9);
    verdicts.push_back(
        absl::StrFormat("pcmoe %s central in speed: %.2f x its tokens/s on this machine.",
                        ratio >= 1 ? "beats" : "loses to", ratio));
  }
  return verdicts;
}

Json JsonOf(const std::vector<SimOutcome>& outcomes, const std::vector<std::string>& parties) {
  Json runs = Json::object();
  for (const SimOutcome& outcome : outcomes) {
    const double mean = outcome.MeanEvalLoss();
    runs[outcome.name] = {{"steps", outcome.steps},
                          {"eval_loss", outcome.eval_loss},
                          {"eval_tokens", outcome.eval_tokens},
                          {"eval_accuracy", outcome.eval_accuracy},
                          {"mean_eval_loss", std::isnan(mean) ? Json() : Json(mean)},
                          {"states_bytes", outcome.states_bytes},
                          {"peak_allocated_bytes", outcome.allocated_bytes},
                          {"peak_resident_bytes", outcome.resident_bytes},
                          {"sent_bytes", outcome.sent_bytes},
                          {"tokens_per_s", outcome.tokens_per_s},
                          {"wall_s", outcome.wall_s}};
  }
  return {{"parties", parties}, {"runs", runs}, {"verdicts", VerdictsOf(outcomes)}};
}

}  // namespace pcmoe::cli
