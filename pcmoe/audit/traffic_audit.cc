// pcmoe/audit/traffic_audit.cc: see traffic_audit.h.
#include "pcmoe/audit/traffic_audit.h"

#include <set>

#include "pcmoe/audit/traffic_attacks.h"

namespace pcmoe::audit {
namespace {

constexpr size_t kMostSequences = 432;  // that the public model is run on
constexpr size_t kMostAShare = 32;      // sequences of each side

// Sequences of the first steps, whole steps only, as many as there may be.
absl::StatusOr<std::vector<Text>> FirstTexts(const AuditInput& input, const PrivateTokens& tokens) {
  std::map<int64_t, std::vector<const PrivateSequence*>> by_step;
  for (const PrivateSequence& one : tokens.sequences()) by_step[one.step].push_back(&one);
  std::vector<data::Sequence> sequences;
  std::vector<std::pair<int64_t, int>> where;
  for (const auto& [step, of_step] : by_step) {
    if (!sequences.empty() && sequences.size() + of_step.size() > kMostSequences) break;
    for (const PrivateSequence* one : of_step) {
      sequences.push_back(one->sequence);
      where.emplace_back(one->step, one->party);
    }
  }
  return TextsOf(input.base, sequences, where);
}

std::set<std::pair<int64_t, int64_t>> OwnExperts(const AuditInput& input) {
  std::set<std::pair<int64_t, int64_t>> own;  // layer, expert
  for (const auto& [party, layout] : input.layouts) {
    for (size_t stage = 0; stage < layout.size(); ++stage) {
      for (const UnitPart& unit : layout[stage]) {
        if (unit.expert >= 0) own.emplace(static_cast<int64_t>(stage), unit.expert);
      }
    }
  }
  return own;
}

Finding FindingOf(const char* id, const char* title, const Scores& scores, const char* note) {
  return {.id = id,
          .title = title,
          .target = Target::kTraffic,
          .metric = "AUC",
          .estimate = AucEstimate(scores.in, scores.out),
          .baselines = {{"chance", 0.5}},
          .more = {{"tries", static_cast<double>(scores.in.size() + scores.out.size())}},
          .note = note};
}

}  // namespace

absl::StatusOr<std::vector<Finding>> AttackTraffic(const AuditInput& input,
                                                   const PrivateTokens& tokens,
                                                   const Capture& shadow) {
  const model::ModelConfig& config = input.base.config();
  PCMOE_ASSIGN_OR_RETURN(const std::vector<Text> texts, FirstTexts(input, tokens));
  PCMOE_ASSIGN_OR_RETURN(const std::vector<CountsShare> shares,
                         ReadCounts(input.coalition[0], config.num_layers * config.num_experts));
  const auto length = static_cast<int64_t>(input.shadow[0].tokens.size());
  return std::vector<Finding>{
      FindingOf("counts_batch", "counts only: is this batch behind this message?",
                MatchBatchesByCounts(shares, texts),
                "each party's masked row counts against every party's and step's true batch"),
      FindingOf(
          "routing_counts", "routing only: is this sequence behind this message?",
          MatchSequencesByRouting(shares, texts, shadow, length, config.vocab_size, kMostAShare),
          "a decoder of public routing reads the masked counts; there are no expert ids"),
      FindingOf("sizes_rows", "sizes only: do more rows make longer messages?",
                MatchRowsBySizes(SizesOf(input.coalition), texts, OwnExperts(input)),
                "every kind, place and sender by itself; equal lengths are ties")};
}

}  // namespace pcmoe::audit
