// pcmoe/report/parts.cc: see parts.h: memory, bytes, router load, audit.
#include "pcmoe/report/parts.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace pcmoe::report {
namespace {

namespace fs = std::filesystem;

// A table of more pairs of parties is one of senders alone.
constexpr size_t kMaxPairs = 64;
// What is less of all bytes is not seen in a chart.
constexpr double kSmallShare = 0.005;

// The largest over the processes of result.json's, or of about.json's planned, `key`.
double Largest(const Mode& mode, bool planned, const char* key) {
  double largest = std::nan("");
  for (const RunFolder& run : mode.processes) {
    const double value = NumberAt(planned ? At(run.about, "planned") : run.result, key);
    if (std::isfinite(value)) largest = std::isnan(largest) ? value : std::max(largest, value);
  }
  return largest;
}

double PlannedCentral(const std::vector<Mode>& modes, const char* key) {
  for (const Mode& mode : modes) {
    for (const RunFolder& run : mode.processes) {
      const double value = NumberAt(At(At(run.about, "planned"), "central"), key);
      if (std::isfinite(value)) return value;
    }
  }
  return std::nan("");
}

Chart MemoryChart(const std::vector<Mode>& modes, const char* title, const char* key) {
  Chart chart{.kind = Chart::Kind::kBars, .title = title, .unit = Unit::kBytes};
  Series planned{.name = "planned"}, measured{.name = "measured"};
  bool central = false;
  for (const Mode& mode : modes) {
    central = central || mode.name == "central";
    chart.categories.push_back(mode.name);
    planned.bars.push_back(Largest(mode, true, key));
    measured.bars.push_back(Largest(mode, false, key));
  }
  if (const double value = PlannedCentral(modes, key); !central && std::isfinite(value)) {
    chart.categories.push_back("central");
    planned.bars.push_back(value);
    measured.bars.push_back(std::nan(""));
  }
  const auto there = [](double value) { return std::isfinite(value); };
  for (Series& series : std::vector<Series>{planned, measured}) {
    if (std::any_of(series.bars.begin(), series.bars.end(), there)) {
      chart.series.push_back(std::move(series));
    }
  }
  return chart;
}

// (sender, receiver) -> kind -> bytes; receiver "everybody" in a table of senders alone.
using Flows = std::map<std::pair<std::string, std::string>, std::map<std::string, double>>;

Flows FlowsOf(const Mode& mode, std::set<std::string>& kinds) {
  size_t pairs = 0;
  for (const RunFolder& run : mode.processes) {
    std::set<std::string> receivers;
    for (const auto& sum : run.ledger.value_or(LedgerFacts{}).sums) receivers.insert(sum.to);
    pairs += receivers.size();
  }
  Flows flows;
  for (const RunFolder& run : mode.processes) {
    for (const auto& sum : run.ledger.value_or(LedgerFacts{}).sums) {
      const std::string to = pairs > kMaxPairs ? "everybody" : sum.to;
      flows[{run.name, to}][sum.kind] += static_cast<double>(sum.bytes);
      kinds.insert(sum.kind);
    }
  }
  return flows;
}

Table FlowTable(const Flows& flows, const std::set<std::string>& kinds) {
  Table table{.header = {"from, to"}};
  for (const std::string& kind : kinds) table.header.push_back(kind);
  table.header.push_back("all");
  for (const auto& [pair, by_kind] : flows) {
    std::vector<Cell> row{{absl::StrCat(pair.first, " to ", pair.second)}};
    double all = 0;
    for (const std::string& kind : kinds) {
      const auto found = by_kind.find(kind);
      row.push_back({found == by_kind.end() ? "-" : BytesText(found->second)});
      all += found == by_kind.end() ? 0 : found->second;
    }
    row.push_back({BytesText(all)});
    table.rows.push_back(std::move(row));
  }
  return table;
}

using Bars = std::vector<std::pair<std::string, Flows>>;

double SumOf(const Flows& flows, const std::string& kind) {
  double sum = 0;
  for (const auto& [pair, by_kind] : flows) {
    const auto found = by_kind.find(kind);
    if (found != by_kind.end()) sum += found->second;
  }
  return sum;
}

// The kinds that are seen in a chart, the largest first.
std::vector<std::string> LargeKinds(const Bars& bars, const std::set<std::string>& kinds) {
  std::vector<std::pair<double, std::string>> sums;
  double all = 0;
  for (const std::string& kind : kinds) {
    double sum = 0;
    for (const auto& [name, flows] : bars) sum += SumOf(flows, kind);
    sums.emplace_back(-sum, kind);
    all += sum;
  }
  std::sort(sums.begin(), sums.end());
  std::vector<std::string> large;
  for (const auto& [negative, kind] : sums) {
    if (-negative >= kSmallShare * all) large.push_back(kind);
  }
  return large;
}

// Stacked by kind: a bar a mode, or a bar a receiver when there is one mode. The many kinds of
// which next to nothing leaves are one; the tables have them all.
Chart KindsChart(const Bars& bars, const std::set<std::string>& kinds) {
  Chart chart{.kind = Chart::Kind::kBars,
              .title = "Bytes that left, by kind",
              .unit = Unit::kBytes,
              .stacked = true};
  const std::vector<std::string> large = LargeKinds(bars, kinds);
  for (const std::string& kind : large) chart.series.push_back({.name = kind});
  if (large.size() < kinds.size()) chart.series.push_back({.name = "all others"});
  for (const auto& [name, flows] : bars) {
    chart.categories.push_back(name);
    double others = 0;
    for (const std::string& kind : kinds) others += SumOf(flows, kind);
    for (size_t i = 0; i < large.size(); ++i) {
      const double sum = SumOf(flows, large[i]);
      chart.series[i].bars.push_back(sum);
      others -= sum;
    }
    if (large.size() < kinds.size()) chart.series.back().bars.push_back(others);
  }
  return chart;
}

void AddLedgerWords(const Mode& mode, Section& section) {
  std::vector<std::string> good;
  for (const RunFolder& run : mode.processes) {
    if (run.ledger) {
      good.push_back(absl::StrFormat("%s: %d records, head %s", run.name, run.ledger->records,
                                     run.ledger->head));
    } else if (!run.ledger_problem.empty()) {
      section.blocks.emplace_back(Text{absl::StrCat("The ledger of ", run.name, " (", mode.name,
                                                    ") cannot be believed: ", run.ledger_problem),
                                       Tone::kBad});
    }
  }
  if (good.empty()) return;
  section.blocks.emplace_back(Folded{absl::StrCat("Ledgers of ", mode.name, ", chains intact"),
                                     {Commands{std::move(good)}}});
}

// Against an even share of each layer; dense layers are left out.
HeatMap HeatMapOf(const Mode& mode, const std::string& title) {
  HeatMap map{.title = title, .row_name = "layer", .column_name = "expert"};
  Load sum;
  for (const RunFolder& run : mode.processes) {
    sum.resize(std::max(sum.size(), run.load.size()));
    for (size_t l = 0; l < run.load.size(); ++l) {
      sum[l].resize(std::max(sum[l].size(), run.load[l].size()), 0);
      for (size_t e = 0; e < run.load[l].size(); ++e) sum[l][e] += run.load[l][e];
    }
  }
  for (size_t l = 0; l < sum.size(); ++l) {
    double total = 0;
    for (const double count : sum[l]) total += count;
    if (total <= 0) continue;
    map.rows.push_back(absl::StrCat(l));
    std::vector<double>& row = map.values.emplace_back();
    for (const double count : sum[l]) {
      row.push_back(count / total * static_cast<double>(sum[l].size()));
    }
  }
  return map;
}

}  // namespace

std::optional<Section> MemorySection(const std::vector<Mode>& modes) {
  Chart states = MemoryChart(modes, "States: weights, gradients, moments", "states_bytes");
  Chart peak = MemoryChart(modes, "Peak of the allocator", "peak_allocated_bytes");
  if (states.series.empty() && peak.series.empty()) return std::nullopt;
  Section section{.title = "Memory"};
  section.blocks.emplace_back(Text{
      "Of the largest process. Planned: what pcmoe plan says of these settings before anything "
      "starts. States count the most that was fetched at a time; the allocator's peak does not."});
  section.blocks.emplace_back(Charts{{std::move(states), std::move(peak)}});
  return section;
}

std::optional<Section> BytesSection(const std::vector<Mode>& modes) {
  Section section{.title = "Bytes that left"};
  Bars bars;
  std::vector<Block> tables;
  std::set<std::string> all_kinds;
  for (const Mode& mode : modes) {
    std::set<std::string> kinds;
    const Flows flows = FlowsOf(mode, kinds);
    AddLedgerWords(mode, section);
    if (flows.empty()) continue;
    all_kinds.insert(kinds.begin(), kinds.end());
    tables.emplace_back(
        Folded{absl::StrCat("Who sent what to whom: ", mode.name), {FlowTable(flows, kinds)}});
    if (modes.size() > 1) {
      bars.emplace_back(mode.name, flows);
    } else {
      for (const auto& [pair, by_kind] : flows) {
        bars.emplace_back(absl::StrCat("to ", pair.second), Flows{{pair, by_kind}});
      }
      tables = {FlowTable(flows, kinds)};
    }
  }
  if (bars.empty() && section.blocks.empty()) return std::nullopt;
  if (!bars.empty()) {
    tables.insert(tables.begin(), Charts{{KindsChart(bars, all_kinds)}});
    tables.insert(tables.begin(),
                  Text{"Frames on the wire by kind of message, headers included, over the whole "
                       "run, as the border's ledgers have them."});
  }
  section.blocks.insert(section.blocks.begin(), tables.begin(), tables.end());
  return section;
}

std::optional<Section> RouterSection(const std::vector<Mode>& modes) {
  Section section{.title = "Router load"};
  for (const Mode& mode : modes) {
    int64_t steps = 0;
    for (const RunFolder& run : mode.processes) steps = std::max(steps, run.load_steps);
    HeatMap map = HeatMapOf(mode, absl::StrFormat("%s: choices of experts in the last %d logged "
                                                  "steps, against an even share",
                                                  mode.name, steps));
    if (map.values.empty()) continue;
    if (section.blocks.empty()) {
      section.blocks.emplace_back(std::move(map));
    } else {
      section.blocks.emplace_back(Folded{absl::StrCat("Router load: ", mode.name), {map}});
    }
  }
  if (section.blocks.empty()) return std::nullopt;
  return section;
}

void AddRest(const std::vector<Mode>& modes, const std::filesystem::path& folder, const Json& about,
             Page& page) {
  for (std::optional<Section> section :
       {CurvesSection(modes), MemorySection(modes), BytesSection(modes), RouterSection(modes),
        AuditSection(folder)}) {
    if (section) page.sections.push_back(*std::move(section));
  }
  page.sections.push_back(ProvenanceSection(about, modes));
  page.foot = "Made by pcmoe; it holds numbers and names, no text of anybody's data.";
}

}  // namespace pcmoe::report
