// pcmoe/report/run_folder.cc: see run_folder.h.
#include "pcmoe/report/run_folder.h"

#include <fstream>

namespace pcmoe::report {
namespace {

namespace fs = std::filesystem;

// The newest loads; a map of every step would not fit for a large model and a long run.
constexpr size_t kLoadSteps = 64;

class MetricsReader {
 public:
  explicit MetricsReader(RunFolder& run) : run_(run) {}

  void Take(const Json& line) {
    const std::string event = TextAt(line, "event");
    if (event == "start") Restart(static_cast<int64_t>(NumberAt(line, "step", 0)));
    if (event == "failure") ++run_.failures;
    const double step = NumberAt(line, "step");
    if (!event.empty() || !(step >= 0 && step < 1e15)) return;
    const auto number = static_cast<int64_t>(step);
    if (const std::string file = TextAt(line, "eval"); !file.empty()) {
      run_.evaluations[number][file] = {.loss = NumberAt(line, "eval_loss"),
                                        .tokens = NumberAt(line, "eval_tokens", 0),
                                        .accuracy = NumberAt(line, "eval_accuracy"),
                                        .accuracy_norm = NumberAt(line, "eval_accuracy_norm"),
                                        .examples = NumberAt(line, "eval_examples", 0)};
    } else if (line.contains("loss")) {
      run_.train[number] = {NumberAt(line, "loss"), NumberAt(line, "num_tokens", 0)};
      TakeLoad(number, At(line, "expert_load"));
    }
  }

  void Finish() {
    for (const auto& [step, load] : loads_) Add(load);
    run_.load_steps = static_cast<int64_t>(loads_.size());
  }

 private:
  // A run that goes on from `step` gives up what came after.
  void Restart(int64_t step) {
    run_.train.erase(run_.train.upper_bound(step), run_.train.end());
    run_.evaluations.erase(run_.evaluations.upper_bound(step), run_.evaluations.end());
    loads_.erase(loads_.upper_bound(step), loads_.end());
  }

  void TakeLoad(int64_t step, const Json& json) {
    if (!json.is_array()) return;
    Load load;
    for (const Json& layer : json) {
      if (!layer.is_array()) return;  // of an older version: summed over layers
      std::vector<double>& row = load.emplace_back();
      for (const Json& count : layer) row.push_back(count.is_number() ? count.get<double>() : 0);
    }
    loads_[step] = std::move(load);
    if (loads_.size() > kLoadSteps) loads_.erase(loads_.begin());
  }

  void Add(const Load& load) {
    if (run_.load.size() < load.size()) run_.load.resize(load.size());
    for (size_t l = 0; l < load.size(); ++l) {
      std::vector<double>& sum = run_.load[l];
      if (sum.size() < load[l].size()) sum.resize(load[l].size(), 0);
      for (size_t e = 0; e < load[l].size(); ++e) sum[e] += load[l][e];
    }
  }

  RunFolder& run_;
  std::map<int64_t, Load> loads_;
};

}  // namespace

absl::StatusOr<RunFolder> ReadRunFolder(const fs::path& folder, std::string name,
                                        const LedgerReader& ledger) {
  RunFolder run{.name = std::move(name)};
  std::ifstream metrics(folder / "metrics.jsonl");
  if (!metrics) {
    return absl::NotFoundError(
        absl::StrCat((folder / "metrics.jsonl").string(), ": cannot be read; is this a run?"));
  }
  MetricsReader reader(run);
  for (std::string line; std::getline(metrics, line);) {
    const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (json.is_object()) reader.Take(json);
  }
  reader.Finish();
  for (auto [file, target] : {std::pair("result.json", &run.result), {"about.json", &run.about}}) {
    if (!fs::exists(folder / file)) continue;
    PCMOE_ASSIGN_OR_RETURN(*target, ReadObject(folder / file));
  }
  if (run.name.empty()) run.name = TextAt(run.about, "party", "this run");
  if (ledger != nullptr && fs::exists(folder / "ledger.jsonl")) {
    auto facts = ledger(folder / "ledger.jsonl");
    if (facts.ok()) {
      run.ledger = *std::move(facts);
    } else {
      run.ledger_problem = std::string(facts.status().message());
    }
  }
  return run;
}

}  // namespace pcmoe::report
