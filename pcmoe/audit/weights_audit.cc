// pcmoe/audit/weights_audit.cc: all attacks on a `weights` run: on released sums of gradients.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <random>
#include <set>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "pcmoe/audit/audit.h"
#include "pcmoe/audit/rows_attacks.h"
#include "pcmoe/audit/sums_attacks.h"
#include "pcmoe/audit/sums_membership.h"
#include "pcmoe/audit/token_decoder.h"
#include "pcmoe/audit/traffic_audit.h"

namespace pcmoe::audit {
namespace {

constexpr int64_t kShadowTokens = 60000;
constexpr size_t kSteps = 3;         // whose sums are attacked
constexpr double kMinutes = 3;       // that those sizes take on two cores, about
constexpr double kCandidates = 192;  // of each side, for the final model

class WeightsAudit {
 public:
  explicit WeightsAudit(const AuditInput& input)
      : input_(input),
        config_(input.base.config()),
        scale_(std::clamp(input.minutes / kMinutes, 0.1, 1.0)) {}

  absl::StatusOr<Report> Run();

 private:
  absl::Status Prepare();
  absl::Status ReadSums(const std::vector<int64_t>& steps);
  absl::Status AttackOthers();
  void AttackWords();
  void AttackTokens();
  void AddWords(const char* id, const char* title, const std::vector<double>& scores,
                const char* note);
  void AddGuesses(const char* id, const char* title, Target target, const at::Tensor& guesses,
                  const std::vector<int32_t>& target_n);
  void Add(Finding finding);
  double CommonestShare(const at::Tensor& public_tokens,
                        const std::vector<int32_t>& target_n) const;

  const AuditInput& input_;
  const model::ModelConfig& config_;
  const double scale_;
  absl::Time mark_ = absl::Now();
  Report report_;
  SumsOfSteps all_sums_;
  std::span<const ReleasedSum> sums_;  // of the first step, by member
  std::optional<PrivateTokens> tokens_, of_step_;
  std::optional<Capture> shadow_;
};

void WeightsAudit::Add(Finding finding) {
  const absl::Time now = absl::Now();
  finding.seconds = absl::ToDoubleSeconds(now - mark_);
  mark_ = now;
  input_.progress(absl::StrFormat("%s: %s %.3f (%.0f s)", finding.title, finding.metric,
                                  finding.estimate.value, finding.seconds));
  report_.findings.push_back(std::move(finding));
}

double WeightsAudit::CommonestShare(const at::Tensor& public_tokens,
                                    const std::vector<int32_t>& target_n) const {
  const auto best =
      static_cast<int32_t>(public_tokens.bincount({}, config_.vocab_size).argmax().item<int64_t>());
  double hits = 0;
  double tries = 0;
  for (const int32_t target : target_n) {
    tries += target >= 0 ? 1 : 0;
    hits += target == best ? 1 : 0;
  }
  return hits / std::max(tries, 1.0);
}

absl::Status WeightsAudit::ReadSums(const std::vector<int64_t>& steps) {
  // The attacker's copy is exact where everybody starts from the public base, and good after that.
  if (steps[0] != 0) {
    report_.warnings.push_back(
        absl::StrCat("the first step recorded is ", steps[0],
                     ": the base is a stale copy there, attacks are weaker"));
  }
  const size_t count = std::min(steps.size(), scale_ < 0.5 ? 1 : kSteps);
  for (size_t k = 0; k < count; ++k) {
    auto& of_step = all_sums_.emplace_back();
    for (const Member& member : input_.coalition) {
      const auto layout = input_.layouts.find(member.party);
      if (layout == input_.layouts.end()) return absl::InternalError("a member without a layout");
      PCMOE_ASSIGN_OR_RETURN(
          of_step.emplace_back(),
          ReadReleasedSum(member, layout->second, static_cast<int>(input_.names.size()),
                          config_.hidden_size, steps[k]));
    }
  }
  sums_ = all_sums_[0];
  return absl::OkStatus();
}

absl::Status WeightsAudit::Prepare() {
  const std::vector<int64_t> steps = StepsWithSums(input_.coalition[0]);
  if (steps.empty()) {
    return absl::FailedPreconditionError(
        "no masked gradients were recorded; train with [border] record_received set to the "
        "coalition's names");
  }
  if (input_.truths.empty()) {
    return absl::FailedPreconditionError(
        "no victim kept its tokens; train with [border] record_truth set to the victims' names");
  }
  PCMOE_RETURN_IF_ERROR(ReadSums(steps));
  const int64_t step = sums_[0].step;
  tokens_.emplace(input_.truths, steps);
  of_step_.emplace(input_.truths, std::vector<int64_t>{step});
  const auto length =
      static_cast<double>(input_.shadow.empty() ? 1 : input_.shadow[0].tokens.size());
  const auto count =
      std::min(input_.shadow.size(),
               static_cast<size_t>(scale_ * static_cast<double>(kShadowTokens) / length));
  if (count < 2) return absl::InvalidArgumentError("the shadow text is too short");
  PCMOE_ASSIGN_OR_RETURN(shadow_, input_.base.Run(input_.shadow.first(count), /*gradients=*/true));
  report_.facts = {{"steps recorded", static_cast<double>(steps.size())},
                   {"steps attacked", static_cast<double>(all_sums_.size())},
                   {"loss tokens in the sum", static_cast<double>(sums_[0].loss_tokens)},
                   {"private sequences", static_cast<double>(of_step_->sequences().size())},
                   {"public tokens", static_cast<double>(shadow_->tokens_t.size(0))}};
  return absl::OkStatus();
}

// Membership, what the final model remembers, and what single messages tell.
absl::Status WeightsAudit::AttackOthers() {
  const auto add_all = [this](std::vector<Finding> findings) {
    for (Finding& finding : findings) Add(std::move(finding));
  };
  PCMOE_ASSIGN_OR_RETURN(
      auto membership, AttackSumsMembership(input_, all_sums_, *tokens_, scale_, report_.warnings));
  add_all(std::move(membership));
  PCMOE_ASSIGN_OR_RETURN(auto traffic, AttackTraffic(input_, *tokens_, *shadow_));
  add_all(std::move(traffic));
  if (!input_.released) return absl::OkStatus();
  const auto truth = input_.truths.find(input_.released->victim);
  if (truth == input_.truths.end()) return absl::OkStatus();
  PCMOE_ASSIGN_OR_RETURN(auto memory, AttackFinalModel(*input_.released, truth->second, input_.base,
                                                       static_cast<size_t>(scale_ * kCandidates),
                                                       input_.seed, report_.warnings));
  add_all(std::move(memory));
  return absl::OkStatus();
}

void WeightsAudit::AddWords(const char* id, const char* title, const std::vector<double>& scores,
                            const char* note) {
  if (scores.empty()) return;
  std::set<int32_t> present(of_step_->token_n().begin(), of_step_->token_n().end());
  const at::Tensor occurs = shadow_->tokens_t.bincount({}, config_.vocab_size);
  std::vector<double> in, out;
  for (int64_t v = 0; v < config_.vocab_size; ++v) {
    if (occurs[v].item<int64_t>() == 0) continue;  // the attacker has no usual row of it
    (present.contains(static_cast<int32_t>(v)) ? in : out)
        .push_back(scores[static_cast<size_t>(v)]);
  }
  Add({.id = id,
       .title = title,
       .target = Target::kProperty,
       .metric = "AUC over words",
       .estimate = AucEstimate(in, out),
       .baselines = {{"chance", 0.5}},
       .more = {{"words used", static_cast<double>(in.size())},
                {"words not used", static_cast<double>(out.size())}},
       .note = note});
}

void WeightsAudit::AttackWords() {
  size_t first = 0;
  while (first < shadow_->x_td.size() && !shadow_->x_td[first].defined()) ++first;
  if (first == shadow_->x_td.size()) return;
  const at::Tensor counts =
      shadow_->tokens_t.bincount({}, config_.vocab_size).to(at::kFloat).unsqueeze(1);
  at::Tensor usual = at::zeros({config_.vocab_size, config_.hidden_size});
  usual.index_add_(0, shadow_->tokens_t, shadow_->x_td[first]);
  usual = usual / (counts + 1e-9);
  const auto layer = static_cast<int64_t>(first);
  for (const ReleasedSum& sum : sums_) {
    AddWords("words_embedding", "which words were used? embedding's sum",
             ScoreWordsByEmbedding(sum), "the owner of the embedding sees this");
  }
  AddWords("words_first_layer", "which words were used? first layer's sum",
           ScoreWordsByProjection(sums_[0], layer, usual),
           "common words are in every batch: frequency alone gives part of this");
  AddWords("span_check", "which words were used? row space of a sum",
           ScoreWordsBySpan(sums_[0], layer, usual),
           "works only while fewer rows than the width are behind a sum");
  // What frequency alone tells: the baseline of both.
  std::vector<double> frequency;
  for (int64_t v = 0; v < config_.vocab_size; ++v) frequency.push_back(counts[v].item<double>());
  AddWords("words_control", "which words were used? public frequency alone", frequency,
           "sees nothing of the run: the baseline of the other guesses of words");
  report_.findings.back().target = Target::kControl;
  const double baseline = report_.findings.back().estimate.value;
  for (Finding& finding : report_.findings) {
    if (finding.metric == "AUC over words" && finding.id != "words_control") {
      finding.baselines.emplace_back("public frequency", baseline);
    }
  }
}

// Rows of a sum are nobody's: each guess is held against one private token of the step, in order.
void WeightsAudit::AddGuesses(const char* id, const char* title, Target target,
                              const at::Tensor& guesses, const std::vector<int32_t>& target_n) {
  std::vector<int64_t> index;
  std::mt19937_64 random(input_.seed);
  for (int64_t i = 0; i < guesses.size(0); ++i) {
    index.push_back(std::uniform_int_distribution<int64_t>(0, of_step_->size() - 1)(random));
  }
  const bool labels = target == Target::kLabels;
  const at::Tensor public_tokens =
      labels ? shadow_->labels_t.index({shadow_->labels_t >= 0}) : shadow_->tokens_t;
  Add({.id = id,
       .title = title,
       .target = target,
       .metric = "top-1",
       .estimate = of_step_->Accuracy(index, guesses, target_n),
       .baselines = {{"unigram", CommonestShare(public_tokens, target_n)},
                     {"uniform", 1.0 / static_cast<double>(config_.vocab_size)}}});
}

void WeightsAudit::AttackTokens() {
  const int64_t vocab = config_.vocab_size;
  std::vector<at::Tensor> token_guesses, label_guesses;
  const at::Tensor with_loss = (shadow_->labels_t >= 0).nonzero().flatten();
  const at::Tensor labels = shadow_->labels_t.index_select(0, with_loss);
  at::Tensor share_guesses;
  for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
    const auto l = static_cast<size_t>(layer);
    std::vector<at::Tensor> token_rows, label_rows;
    for (const ReleasedSum& sum : sums_) {
      for (const ReleasedSum::Expert& expert : sum.experts) {
        if (expert.layer != layer) continue;
        token_rows.push_back(expert.gate_up_fd);
        label_rows.push_back(expert.down_df.t());
      }
    }
    if (token_rows.empty()) continue;
    const auto unit = [](const at::Tensor& rows) {
      return rows / (rows.norm(2, 1, /*keepdim=*/true) + 1e-20);
    };
    const at::Tensor x = unit(shadow_->x_td[l]);
    const TokenDecoder tokens = TokenDecoder::Train(x, shadow_->tokens_t, vocab, {});
    token_guesses.push_back(tokens.Best(unit(at::cat(token_rows))));
    if (!share_guesses.defined() && sums_[0].one_share_rd.defined()) {
      share_guesses = tokens.Best(unit(sums_[0].one_share_rd));
    }
    const TokenDecoder next =
        TokenDecoder::Train(unit(shadow_->q_td[l].index_select(0, with_loss)), labels, vocab, {});
    label_guesses.push_back(next.Best(unit(at::cat(label_rows))));
  }
  if (token_guesses.empty()) return;
  AddGuesses("sums_tokens", "row decoder on rows of the released sums", Target::kTokens,
             at::cat(token_guesses), of_step_->token_n());
  if (share_guesses.defined()) {
    AddGuesses("share_tokens", "row decoder on a single masked share", Target::kTokens,
               share_guesses, of_step_->token_n());
  }
  AddGuesses("sums_labels", "label decoder on columns of the released sums", Target::kLabels,
             at::cat(label_guesses), of_step_->label_n());
}

absl::StatusOr<Report> WeightsAudit::Run() {
  const absl::Time begin = absl::Now();
  report_.exchange = "weights";
  for (const Member& member : input_.coalition) {
    report_.coalition.push_back(input_.names[static_cast<size_t>(member.party)]);
  }
  for (const auto& [party, truth] : input_.truths) {
    report_.victims.push_back(input_.names[static_cast<size_t>(party)]);
  }
  PCMOE_RETURN_IF_ERROR(Prepare());
  mark_ = absl::Now();
  PCMOE_RETURN_IF_ERROR(AttackOthers());
  AttackWords();
  AttackTokens();
  report_.seconds = absl::ToDoubleSeconds(absl::Now() - begin);
  report_.verdicts = VerdictsOf(report_);
  return std::move(report_);
}

}  // namespace

absl::StatusOr<Report> AuditWeights(const AuditInput& input) { return WeightsAudit(input).Run(); }

}  // namespace pcmoe::audit
