// pcmoe/audit/traffic_audit.cc: see traffic_audit.h.
#include "pcmoe/audit/traffic_audit.h"

#include <set>

#include "pcmoe/audit/traffic_attacks.h"

namespace pcmoe::audit {
namespace {

constexpr size_t kMostSequences = 432;  // that the public model is run on
constexpr size_t kMostAShare = 32;      // sequences of each side
constexpr int kNullDraws = 1000;

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

Finding FindingOf(const char* id, const char* title, const Scores& scores, const Estimate& estimate,
                  const char* note) {
  return {.id = id,
          .title = title,
          .target = Target::kTraffic,
          .metric = "AUC",
          .estimate = estimate,
          .baselines = {{"chance", 0.5}},
          .more = {{"tries", static_cast<double>(scores.in.size() + scores.out.size())}},
          .note = note};
}

// Held against fresh masks: tries share a message, and messages share a sum.
Finding OnShares(const char* id, const char* title, std::span<const CountsShare> shares,
                 const std::function<Scores(std::span<const CountsShare>)>& match,
                 const char* note) {
  const Scores scores = match(shares);
  const std::vector<double> null = AucsOfFreshMasks(shares, kNullDraws, match);
  const double auc = Auc(scores.in, scores.out);
  Finding finding = FindingOf(id, title, scores, AgainstNull(auc, null), note);
  finding.more.emplace_back("AUC as it is", auc);
  finding.more.emplace_back("share of fresh masks as far off", TwoSidedP(auc, null));
  return finding;
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
  const BatchesByCounts batches(texts);
  const SequencesByRouting sequences(texts, shadow, length, config.vocab_size, kMostAShare);
  const Scores by_size = MatchRowsBySizes(SizesOf(input.coalition), texts, OwnExperts(input));
  return std::vector<Finding>{
      OnShares(
          "counts_batch", "counts only: is this batch behind this message?", shares,
          [&](std::span<const CountsShare> of) { return batches.Match(of); },
          "each party's masked row counts against every party's and step's true batch; "
          "less what fresh masks get"),
      OnShares(
          "routing_counts", "routing only: is this sequence behind this message?", shares,
          [&](std::span<const CountsShare> of) { return sequences.Match(of); },
          "a decoder of public routing reads the masked counts; there are no expert ids; "
          "less what fresh masks get"),
      FindingOf("sizes_rows", "sizes only: do more rows make longer messages?", by_size,
                AucEstimate(by_size.in, by_size.out),
                "every kind, place and sender by itself; equal lengths are ties")};
}

}  // namespace pcmoe::audit
