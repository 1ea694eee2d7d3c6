// pcmoe/audit/sums_membership.cc: see sums_membership.h.
#include "pcmoe/audit/sums_membership.h"

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "absl/strings/str_format.h"
#include "pcmoe/audit/membership.h"
#include "pcmoe/audit/sums_attacks.h"

namespace pcmoe::audit {
namespace {

constexpr size_t kFilterDocuments = 144;
constexpr size_t kCandidates = 96;  // a step
constexpr size_t kFewest = 8;
constexpr size_t kUsualDocuments = 16;

// Sequences that may be in sums, and the steps that each was used in.
struct Candidates {
  std::vector<data::Sequence> sequences;
  std::vector<std::set<int64_t>> steps;

  bool In(size_t candidate, const std::set<int64_t>& wanted) const {
    return std::any_of(wanted.begin(), wanted.end(),
                       [&](int64_t step) { return steps[candidate].contains(step); });
  }
};

// Of every attacked step; and, so that there is always somebody who was in none, of one more.
Candidates Choose(const SumsOfSteps& sums, const PrivateTokens& tokens, size_t a_step,
                  uint64_t seed) {
  std::map<std::vector<int32_t>, std::set<int64_t>> used_in;
  std::map<int64_t, std::vector<const data::Sequence*>> by_step;
  for (const PrivateSequence& one : tokens.sequences()) {
    used_in[one.sequence.tokens].insert(one.step);
    by_step[one.step].push_back(&one.sequence);
  }
  std::vector<int64_t> steps;
  for (const auto& of_step : sums) steps.push_back(of_step[0].step);
  for (const auto& [step, sequences] : by_step) {
    if (std::find(steps.begin(), steps.end(), step) != steps.end()) continue;
    steps.push_back(step);
    break;
  }
  Candidates candidates;
  std::set<std::vector<int32_t>> chosen;
  std::mt19937_64 random(seed);
  for (const int64_t step : steps) {
    std::vector<const data::Sequence*>& of_step = by_step[step];
    std::shuffle(of_step.begin(), of_step.end(), random);
    size_t count = 0;
    for (const data::Sequence* one : of_step) {
      if (count == a_step || !chosen.insert(one->tokens).second) continue;
      candidates.sequences.push_back(*one);
      candidates.steps.push_back(used_in[one->tokens]);
      ++count;
    }
  }
  return candidates;
}

// Sums that are attacked together: some steps' of each member of the coalition.
struct Group {
  std::set<int64_t> steps;
  std::vector<ReleasedSum> of_member;
  std::vector<double> gradient_scale;
};

// Every step by itself, then the first two added, the first three, and so on.
std::vector<Group> GroupsOf(const SumsOfSteps& sums, double parties) {
  std::vector<Group> groups;
  for (const auto& of_step : sums) {
    Group group{.steps = {of_step[0].step}, .of_member = of_step};
    for (const ReleasedSum& sum : of_step) {
      // The owner's own tokens are in the divisor, too; about as many as each other party's.
      group.gradient_scale.push_back((parties - 1) / parties /
                                     static_cast<double>(std::max<int64_t>(sum.loss_tokens, 1)));
    }
    groups.push_back(std::move(group));
  }
  Group added = groups[0];
  for (size_t k = 1; k < sums.size(); ++k) {
    added.steps.insert(sums[k][0].step);
    for (size_t m = 0; m < added.of_member.size(); ++m) {
      added.of_member[m] = Added(added.of_member[m], sums[k][m]);
    }
    groups.push_back(added);
  }
  return groups;
}

struct Sides {
  std::vector<double> in, out;
};

Sides SidesOf(const Group& group, const Candidates& candidates, const std::vector<double>& score) {
  Sides sides;
  for (size_t c = 0; c < score.size(); ++c) {
    (candidates.In(c, group.steps) ? sides.in : sides.out).push_back(score[c]);
  }
  return sides;
}

// Scores of every group, members of the coalition added up.
absl::StatusOr<std::vector<std::vector<double>>> Align(const AuditInput& input,
                                                       const std::vector<Group>& groups,
                                                       const Candidates& candidates) {
  std::vector<std::vector<double>> total(groups.size(),
                                         std::vector<double>(candidates.sequences.size(), 0));
  const auto filter = input.shadow.first(std::min(input.shadow.size(), kFilterDocuments));
  for (size_t m = 0; m < groups[0].of_member.size(); ++m) {
    std::vector<ScaledSum> sums;
    for (const Group& group : groups) {
      sums.push_back({&group.of_member[m], group.gradient_scale[m]});
    }
    PCMOE_ASSIGN_OR_RETURN(const auto scores,
                           ScoreByAlignment(sums, input.base, filter, candidates.sequences));
    for (size_t g = 0; g < groups.size(); ++g) {
      for (size_t c = 0; c < scores[g].size(); ++c) total[g][c] += scores[g][c];
    }
  }
  return total;
}

Finding AlignmentFinding(const std::vector<Group>& groups, const Candidates& candidates,
                         const std::vector<std::vector<double>>& scores) {
  const Sides first = SidesOf(groups[0], candidates, scores[0]);
  Finding finding{.id = "membership_alignment",
                  .title = "was this sequence in this step? by its gradient",
                  .target = Target::kMembership,
                  .metric = "AUC",
                  .estimate = AucEstimate(first.in, first.out),
                  .baselines = {{"chance", 0.5}},
                  .note =
                      "others are the same victims' sequences of other steps; steps added: as "
                      "if they had been one step of more tokens"};
  for (size_t g = 0; g < groups.size(); ++g) {
    const Sides sides = SidesOf(groups[g], candidates, scores[g]);
    if (sides.in.size() < kFewest || sides.out.size() < kFewest) continue;
    const std::string where = groups[g].steps.size() == 1
                                  ? absl::StrCat("step ", *groups[g].steps.begin())
                                  : absl::StrCat(groups[g].steps.size(), " steps added");
    finding.more.emplace_back(
        absl::StrFormat("AUC at %d tokens (%s)", groups[g].of_member[0].loss_tokens, where),
        Auc(sides.in, sides.out));
  }
  finding.more.emplace_back("TPR at 1 % FPR", TprAtFpr(first.in, first.out, 0.01));
  finding.more.emplace_back("loss tokens in the sum",
                            static_cast<double>(groups[0].of_member[0].loss_tokens));
  finding.more.emplace_back("members", static_cast<double>(first.in.size()));
  finding.more.emplace_back("others", static_cast<double>(first.out.size()));
  return finding;
}

absl::StatusOr<Finding> MatchRows(const AuditInput& input, const Group& group,
                                  const Candidates& candidates) {
  PCMOE_ASSIGN_OR_RETURN(
      const Capture usual,
      input.base.Run(input.shadow.first(std::min(input.shadow.size(), kUsualDocuments)), false));
  const View rows = RowsOfSums(group.of_member, usual);
  PCMOE_ASSIGN_OR_RETURN(const auto scores,
                         ScoreByRows(rows, *group.steps.begin(), input.base, candidates.sequences));
  const Sides sides = SidesOf(group, candidates, scores);
  return Finding{.id = "row_matching",
                 .title = "was this sequence in this step? by rows of the sums",
                 .target = Target::kMembership,
                 .metric = "AUC",
                 .estimate = AucEstimate(sides.in, sides.out),
                 .baselines = {{"chance", 0.5}},
                 .note = "the attack that works on received rows, on rows of summed gradients"};
}

}  // namespace

absl::StatusOr<std::vector<Finding>> AttackSumsMembership(const AuditInput& input,
                                                          const SumsOfSteps& sums,
                                                          const PrivateTokens& tokens, double share,
                                                          std::vector<std::string>& warnings) {
  const auto a_step = static_cast<size_t>(share * static_cast<double>(kCandidates));
  const Candidates candidates = Choose(sums, tokens, a_step, input.seed);
  const std::vector<Group> groups = GroupsOf(sums, static_cast<double>(input.names.size()));
  size_t members = 0;
  for (size_t c = 0; c < candidates.steps.size(); ++c) {
    members += candidates.In(c, groups[0].steps) ? 1 : 0;
  }
  if (members < kFewest || candidates.steps.size() - members < kFewest) {
    warnings.push_back(
        "membership was not attacked: the victims kept too few sequences of other steps");
    return std::vector<Finding>{};
  }
  PCMOE_ASSIGN_OR_RETURN(const auto scores, Align(input, groups, candidates));
  PCMOE_ASSIGN_OR_RETURN(Finding rows, MatchRows(input, groups[0], candidates));
  return std::vector<Finding>{AlignmentFinding(groups, candidates, scores), std::move(rows)};
}

}  // namespace pcmoe::audit
