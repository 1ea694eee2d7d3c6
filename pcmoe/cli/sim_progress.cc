// pcmoe/cli/sim_progress.cc: see sim_progress.h.
#include "pcmoe/cli/sim_progress.h"

#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"

namespace pcmoe::cli {
namespace {

constexpr absl::Duration kTerminalEvery = absl::Milliseconds(200);
constexpr absl::Duration kPlainEvery = absl::Seconds(5);

std::string Minutes(double seconds) {
  const auto whole = static_cast<int64_t>(seconds + 0.5);
  return absl::StrFormat("%dm%02ds", whole / 60, whole % 60);
}

double NumberAt(const nlohmann::json& json, const char* key) {
  const auto found = json.find(key);
  return found != json.end() && found->is_number() ? found->get<double>() : 0;
}

}  // namespace

SimProgress::SimProgress(std::string title, std::vector<std::string> names,
                         std::vector<std::filesystem::path> metrics, int64_t max_steps)
    : title_(std::move(title)), max_steps_(max_steps), terminal_(::isatty(STDERR_FILENO) == 1) {
  for (size_t i = 0; i < names.size(); ++i) {
    parties_.emplace_back();
    parties_.back().name = names[i];
    parties_.back().path = metrics[i];
  }
}

SimProgress::~SimProgress() {
  if (line_open_) std::cerr << "\n";
}

void SimProgress::Take(Party& party, const std::string& line) {
  const nlohmann::json json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("loss")) return;  // an evaluation, or an event
  const auto step = static_cast<int64_t>(NumberAt(json, "step"));
  const int64_t steps =
      std::max<int64_t>(step - party.step, 0);  // logging_steps may leave some out
  party.step = step;
  party.loss = NumberAt(json, "loss");
  party.tokens = NumberAt(json, "num_tokens");
  party.sent_bytes = NumberAt(json, "sent_bytes");
  party.waited_s = NumberAt(json, "slowest_wait_s");
  const auto slowest = json.find("slowest_party");
  party.waited_for =
      slowest != json.end() && slowest->is_string() ? slowest->get<std::string>() : "";
  if (first_step_ > 0) {
    party.input_after_first += NumberAt(json, "num_input_tokens") * static_cast<double>(steps);
  }
}

bool SimProgress::Read(Party& party) {
  if (!party.file.is_open()) {
    party.file.open(party.path);
    if (!party.file.is_open()) return false;
  }
  party.file.clear();  // the end that was reached before may have moved
  bool any = false;
  char buffer[4096];
  while (party.file.read(buffer, sizeof(buffer)), party.file.gcount() > 0) {
    any = true;
    party.rest.append(buffer, static_cast<size_t>(party.file.gcount()));
  }
  size_t begin = 0;
  for (size_t end; (end = party.rest.find('\n', begin)) != std::string::npos; begin = end + 1) {
    Take(party, party.rest.substr(begin, end - begin));
  }
  party.rest.erase(0, begin);
  return any;
}

int64_t SimProgress::Step() const {
  int64_t step = max_steps_;
  for (const Party& party : parties_) step = std::min(step, party.step);
  return step;
}

// Whom the others waited for longest in their last steps; in runs where nobody waits, who is
// behind.
std::string SimProgress::Slowest() const {
  std::map<std::string, double> waits;
  for (const Party& party : parties_) {
    if (!party.waited_for.empty()) waits[party.waited_for] += party.waited_s;
  }
  const auto longest = std::max_element(
      waits.begin(), waits.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  if (longest != waits.end()) return longest->first;
  return std::min_element(parties_.begin(), parties_.end(),
                          [](const Party& a, const Party& b) { return a.step < b.step; })
      ->name;
}

std::string SimProgress::Line() const {
  const int64_t step = Step();
  if (step == 0) return absl::StrCat(title_, ": starting");
  double loss = 0, tokens = 0, sent = 0, timed = 0;
  for (const Party& party : parties_) {
    loss += party.loss * party.tokens;
    tokens += party.tokens;
    sent += party.sent_bytes;
    timed += party.input_after_first;
  }
  std::string line = absl::StrFormat("%s: step %d/%d loss %.4f", title_, step, max_steps_,
                                     loss / std::max(tokens, 1.0));
  const double seconds = absl::ToDoubleSeconds(step_time_ - first_time_);
  if (first_step_ > 0 && step > first_step_ && seconds > 0) {
    const double step_s = seconds / static_cast<double>(step - first_step_);
    absl::StrAppendFormat(&line, " | %.0f tokens/s | ETA %s", timed / seconds,
                          Minutes(step_s * static_cast<double>(max_steps_ - step)));
  }
  absl::StrAppendFormat(&line, " | %.2f MB a step", sent / 1e6);
  if (parties_.size() > 1) absl::StrAppendFormat(&line, " | slowest %s", Slowest());
  return line;
}

bool SimProgress::Tick() {
  bool any = false;
  for (Party& party : parties_) any |= Read(party);
  const absl::Time now = absl::Now();
  const int64_t step = Step();
  if (first_step_ == 0 && step > 0) {
    first_step_ = step;
    first_time_ = now;
  }
  if (step != shown_step_) step_time_ = now;
  shown_step_ = step;
  const bool ended = step == max_steps_ && !ended_;
  ended_ |= ended;
  if (!ended && now - shown_ < (terminal_ ? kTerminalEvery : kPlainEvery)) return any;
  shown_ = now;
  if (terminal_) {
    std::cerr << "\r\x1b[K" << Line() << std::flush;
    line_open_ = true;
  } else {
    std::cerr << Line() << "\n";
  }
  return any;
}

}  // namespace pcmoe::cli
