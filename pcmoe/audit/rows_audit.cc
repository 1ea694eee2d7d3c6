// pcmoe/audit/rows_audit.cc: all attacks on a `rows` run, scored against what the victims kept.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>

#include <algorithm>
#include <memory>
#include <random>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "pcmoe/audit/audit.h"
#include "pcmoe/audit/known_plaintext.h"
#include "pcmoe/audit/membership.h"
#include "pcmoe/audit/rows_attacks.h"

namespace pcmoe::audit {
namespace {

constexpr int64_t kPrivateTokens = 24000;  // to attack, at least 64 sequences
constexpr int64_t kShadowTokens = 80000;
constexpr double kMinutes = 5;      // that those sizes take on two cores, about
constexpr size_t kCandidates = 96;  // of each side, a membership test
constexpr double kVariedShare = 0.3;

class RowsAudit {
 public:
  explicit RowsAudit(const AuditInput& input)
      : input_(input), vocab_(input.base.config().vocab_size) {}

  absl::StatusOr<Report> Run();

 private:
  // A size, cut to the minutes that there are.
  int64_t Scaled(int64_t size) const {
    return static_cast<int64_t>(static_cast<double>(size) *
                                std::clamp(input_.minutes / kMinutes, 0.05, 1.0));
  }
  absl::Status Prepare();
  absl::Status PrepareShadow();
  void AttackTokens();
  void AttackLabels();
  void AttackRouting();
  absl::Status AttackKnownAndFinal();
  absl::Status AttackMembership();
  void AttackSizes();
  absl::Status LanguageModelPrior();
  Finding& Add(Finding finding);
  Estimate OverRows(const RowGuesses& guesses, const std::vector<int32_t>& target_n,
                    std::vector<std::pair<std::string, double>>* by_layer) const;
  double Unigram(const at::Tensor& public_tokens, const std::vector<int32_t>& target_n) const;
  double UnigramOfRows() const;
  static double Majority(const std::vector<int32_t>& target_n);

  const AuditInput& input_;
  const int64_t vocab_;
  absl::Time mark_ = absl::Now();
  Report report_;
  std::vector<int64_t> steps_;  // recorded
  View view_;
  std::unique_ptr<PrivateTokens> tokens_;  // Prepare makes it
  std::vector<std::vector<int64_t>> token_of_row_;
  Shadow shadow_;
  std::vector<Cluster> clusters_;
  std::vector<int64_t> token_of_cluster_;
  std::vector<std::pair<std::string, double>> token_baselines_, label_baselines_;
};

// Steps spread over the run, until their batches hold about `wanted` tokens.
std::set<int64_t> ChooseSteps(const std::vector<int64_t>& all, const Truths& truths,
                              int64_t wanted) {
  int64_t total = 0;
  for (const auto& [party, truth] : truths) {
    for (const auto& [key, batch] : truth.batches())
      total += static_cast<int64_t>(batch.tokens.size());
  }
  const double a_step = std::max(1.0, static_cast<double>(total) / static_cast<double>(all.size()));
  const auto count = std::clamp<size_t>(
      static_cast<size_t>(static_cast<double>(wanted) / a_step + 0.5), 1, all.size());
  std::set<int64_t> steps;
  for (size_t i = 0; i < count; ++i) steps.insert(all[i * all.size() / count]);
  return steps;
}

Finding& RowsAudit::Add(Finding finding) {
  const absl::Time now = absl::Now();
  finding.seconds = absl::ToDoubleSeconds(now - mark_);
  mark_ = now;
  input_.progress(absl::StrFormat("%s: %s %.3f (%.0f s)", finding.title, finding.metric,
                                  finding.estimate.value, finding.seconds));
  report_.findings.push_back(std::move(finding));
  return report_.findings.back();
}

absl::Status RowsAudit::Prepare() {
  steps_ = StepsWithRows(input_.coalition);
  if (steps_.empty()) {
    return absl::FailedPreconditionError(
        "no rows were recorded; train with [border] record_received set to the coalition's names");
  }
  int64_t kept = 0;
  for (const auto& [party, truth] : input_.truths)
    kept += static_cast<int64_t>(truth.batches().size());
  if (kept == 0) {
    return absl::FailedPreconditionError(
        "no victim kept its tokens; train with [border] record_truth set to the victims' names");
  }
  const std::set<int64_t> chosen = ChooseSteps(steps_, input_.truths, Scaled(kPrivateTokens));
  PCMOE_ASSIGN_OR_RETURN(view_, MakeView(input_.coalition, input_.base.config(), chosen));
  tokens_ = std::make_unique<PrivateTokens>(input_.truths, view_.steps);
  token_of_row_ = tokens_->TokensOfRows(view_);
  int64_t rows = 0;
  for (const LayerView& layer : view_.layers) rows += static_cast<int64_t>(layer.sources.size());
  report_.facts = {{"steps recorded", static_cast<double>(steps_.size())},
                   {"steps attacked", static_cast<double>(chosen.size())},
                   {"private tokens", static_cast<double>(tokens_->size())},
                   {"private sequences", static_cast<double>(tokens_->sequences().size())},
                   {"rows seen", static_cast<double>(rows)}};
  return absl::OkStatus();
}

absl::Status RowsAudit::PrepareShadow() {
  if (input_.shadow.empty()) return absl::InvalidArgumentError("the shadow text is empty");
  const auto length = static_cast<int64_t>(input_.shadow[0].tokens.size());
  const auto count =
      std::min<size_t>(input_.shadow.size(),
                       static_cast<size_t>(std::max<int64_t>(1, Scaled(kShadowTokens) / length)));
  const auto plain = input_.shadow.first(count);
  PCMOE_ASSIGN_OR_RETURN(shadow_.plain, input_.base.Run(plain, /*gradients=*/true));
  std::vector<data::Sequence> varied(plain.begin(),
                                     plain.begin() + static_cast<std::ptrdiff_t>((count + 1) / 2));
  std::mt19937_64 random(input_.seed);
  for (data::Sequence& sequence : varied) {
    for (int32_t& token : sequence.tokens) {
      if (std::bernoulli_distribution(kVariedShare)(random)) {
        token = std::uniform_int_distribution<int32_t>(0, static_cast<int32_t>(vocab_) - 1)(random);
      }
    }
  }
  PCMOE_ASSIGN_OR_RETURN(shadow_.varied, input_.base.Run(varied, /*gradients=*/false));
  report_.facts.emplace_back("public tokens", static_cast<double>(shadow_.plain.tokens_t.size(0)));

  const auto seen_labels = shadow_.plain.labels_t.index({shadow_.plain.labels_t >= 0});
  const double uniform = 1.0 / static_cast<double>(vocab_);
  token_baselines_ = {{"unigram", Unigram(shadow_.plain.tokens_t, tokens_->token_n())},
                      {"majority", Majority(tokens_->token_n())},
                      {"uniform", uniform}};
  label_baselines_ = {{"unigram", Unigram(seen_labels, tokens_->label_n())},
                      {"majority", Majority(tokens_->label_n())},
                      {"uniform", uniform}};
  return absl::OkStatus();
}

// The commonest token of the public text, as a guess for every private one.
double RowsAudit::Unigram(const at::Tensor& public_tokens,
                          const std::vector<int32_t>& target_n) const {
  const auto best =
      static_cast<int32_t>(public_tokens.bincount({}, vocab_).argmax().item<int64_t>());
  int64_t hits = 0;
  int64_t tries = 0;
  for (const int32_t target : target_n) {
    tries += target >= 0 ? 1 : 0;
    hits += target == best ? 1 : 0;
  }
  return static_cast<double>(hits) / static_cast<double>(std::max<int64_t>(tries, 1));
}

// The commonest private token: what an attacker who knew the private frequencies would guess.
double RowsAudit::Majority(const std::vector<int32_t>& target_n) {
  std::map<int32_t, int64_t> counts;
  int64_t tries = 0;
  int64_t most = 0;
  for (const int32_t target : target_n) {
    if (target < 0) continue;
    ++tries;
    most = std::max(most, ++counts[target]);
  }
  return static_cast<double>(most) / static_cast<double>(std::max<int64_t>(tries, 1));
}

Estimate RowsAudit::OverRows(const RowGuesses& guesses, const std::vector<int32_t>& target_n,
                             std::vector<std::pair<std::string, double>>* by_layer) const {
  std::vector<int64_t> index;
  std::vector<at::Tensor> all;
  for (size_t l = 0; l < guesses.size(); ++l) {
    if (!guesses[l].defined()) continue;
    if (by_layer != nullptr) {
      by_layer->emplace_back(absl::StrCat("layer ", l),
                             tokens_->Accuracy(token_of_row_[l], guesses[l], target_n).value);
    }
    index.insert(index.end(), token_of_row_[l].begin(), token_of_row_[l].end());
    all.push_back(guesses[l]);
  }
  return all.empty() ? Estimate{} : tokens_->Accuracy(index, at::cat(all), target_n);
}

// The unigram's guess for the rows seen: experts share out tokens, so an owner may see more or less
// of the commonest one than there is.
double RowsAudit::UnigramOfRows() const {
  const at::Tensor best = shadow_.plain.tokens_t.bincount({}, vocab_).argmax();
  RowGuesses guesses(view_.layers.size());
  for (size_t l = 0; l < guesses.size(); ++l) {
    if (view_.layers[l].sources.empty()) continue;
    guesses[l] = best.repeat({static_cast<int64_t>(view_.layers[l].sources.size())});
  }
  return OverRows(guesses, tokens_->token_n(), nullptr).value;
}

void RowsAudit::AttackTokens() {
  const std::vector<int32_t>& target = tokens_->token_n();
  std::vector<std::pair<std::string, double>> of_rows_seen = token_baselines_;
  of_rows_seen[0].second = UnigramOfRows();
  const RowGuesses shuffled = DecodeRowsControl(view_, shadow_, vocab_, true);
  const RowGuesses noticed = DecodeRowsControl(view_, shadow_, vocab_, false);
  Add({.id = "row_control",
       .title = "control: decoder of shuffled public rows",
       .target = Target::kControl,
       .metric = "top-1 of rows seen",
       .estimate = OverRows(shuffled, target, nullptr),
       .baselines = of_rows_seen,
       .more = {{"same training, rows not shuffled", OverRows(noticed, target, nullptr).value}},
       .note = "must be the unigram's of the rows seen: what is above it the harness itself gives "
               "away; not shuffled, the same training shows that it would be noticed"});
  const double control = report_.findings.back().estimate.value;

  std::vector<std::pair<std::string, double>> by_layer;
  const RowGuesses nearest = DecodeByCodebook(view_, shadow_, vocab_);
  const Estimate codebook = OverRows(nearest, target, &by_layer);
  Add({.id = "codebook",
       .title = "nearest mean row (no training)",
       .target = Target::kTokens,
       .metric = "top-1 of rows seen",
       .estimate = codebook,
       .baselines = of_rows_seen,
       .more = by_layer});

  clusters_ = Linker(shadow_.plain).Link(view_);
  token_of_cluster_ = PrivateTokens::TokensOfClusters(clusters_, token_of_row_);
  const DecodedRows decoded = DecodeRows(view_, clusters_, shadow_, vocab_, {.epochs = 6});
  auto baselines = token_baselines_;
  baselines.emplace_back("permuted rows", control);
  of_rows_seen.emplace_back("permuted rows", control);
  by_layer.clear();
  const Estimate of_rows = OverRows(decoded.rows, target, &by_layer);
  Add({.id = "row_decoder",
       .title = "learned row decoder",
       .target = Target::kTokens,
       .metric = "top-1 of rows seen",
       .estimate = of_rows,
       .baselines = of_rows_seen,
       .more = by_layer});
  const Estimate of_seen = tokens_->Accuracy(token_of_cluster_, decoded.clusters, target);
  Add({.id = "row_decoder_all",
       .title = "learned row decoder, rows linked over layers",
       .target = Target::kTokens,
       .metric = "top-1 of all tokens",
       .estimate = tokens_->AccuracyOfAll(token_of_cluster_, decoded.clusters, target),
       .baselines = baselines,
       .more = {{"of tokens seen", of_seen.value},
                {"clusters", static_cast<double>(clusters_.size())}}});

  const at::Tensor of_sets = DecodeSets(view_, clusters_, shadow_, vocab_, {});
  const Estimate of_sets_seen = tokens_->Accuracy(token_of_cluster_, of_sets, target);
  Add({.id = "sequence_decoder_all",
       .title = "sequence decoder over partial rows",
       .target = Target::kTokens,
       .metric = "top-1 of all tokens",
       .estimate = tokens_->AccuracyOfAll(token_of_cluster_, of_sets, target),
       .baselines = baselines,
       .more = {{"of tokens seen", of_sets_seen.value}},
       .note = "messages are shuffled: linked tokens of a micro-batch are a set, no order is used; "
               "a token of which no row was seen is a miss"});
}

void RowsAudit::AttackLabels() {
  const std::vector<int32_t>& target = tokens_->label_n();
  const model::BackboneParameters& weights = input_.base.backbone().weights();
  std::vector<std::pair<std::string, double>> by_layer;
  const RowGuesses closed = LabelsClosedForm(view_, weights.head_vd, weights.final_norm_d);
  const Estimate overall = OverRows(closed, target, &by_layer);
  Estimate best = overall;
  for (size_t l = 0; l < closed.size(); ++l) {
    if (!closed[l].defined()) continue;
    const Estimate one = tokens_->Accuracy(token_of_row_[l], closed[l], target);
    if (one.value > best.value) best = one;
  }
  Add({.id = "labels_closed_form",
       .title = "labels from gradient rows, closed form",
       .target = Target::kLabels,
       .metric = "top-1, best layer",
       .estimate = best,
       .baselines = label_baselines_,
       .more = by_layer});
  by_layer.clear();
  const DecodedRows learned = LabelsLearned(view_, clusters_, shadow_, vocab_, {});
  OverRows(learned.rows, target, &by_layer);
  Add({.id = "labels_learned",
       .title = "labels from gradient rows, learned and linked",
       .target = Target::kLabels,
       .metric = "top-1 of labels seen",
       .estimate = tokens_->Accuracy(token_of_cluster_, learned.clusters, target),
       .baselines = label_baselines_,
       .more = by_layer});
}

void RowsAudit::AttackRouting() {
  for (const bool with_weights : {false, true}) {
    const at::Tensor guess = DecodeRouting(view_, clusters_, shadow_, vocab_, with_weights);
    const Estimate seen = tokens_->Accuracy(token_of_cluster_, guess, tokens_->token_n());
    Add({.id = with_weights ? "routing_weights" : "routing_ids",
         .title = with_weights ? "routing only: expert ids and gate weights"
                               : "routing only: expert ids",
         .target = Target::kTokens,
         .metric = "top-1 of tokens seen",
         .estimate = seen,
         .baselines = token_baselines_,
         .more = {{"of all tokens",
                   tokens_->AccuracyOfAll(token_of_cluster_, guess, tokens_->token_n()).value}},
         .note = "which rows are one token's is taken from the rows"});
  }
}

absl::Status RowsAudit::AttackKnownAndFinal() {
  PCMOE_ASSIGN_OR_RETURN(auto known, AttackWithKnownPlaintext(input_, view_, steps_,
                                                              token_baselines_, report_.warnings));
  for (Finding& finding : known) Add(std::move(finding));
  if (!input_.released) return absl::OkStatus();
  const auto truth = input_.truths.find(input_.released->victim);
  if (truth == input_.truths.end()) return absl::OkStatus();
  PCMOE_ASSIGN_OR_RETURN(auto memory,
                         AttackFinalModel(*input_.released, truth->second, input_.base,
                                          static_cast<size_t>(Scaled(2 * int64_t{kCandidates})),
                                          input_.seed, report_.warnings));
  for (Finding& finding : memory) Add(std::move(finding));
  return absl::OkStatus();
}

absl::Status RowsAudit::AttackMembership() {
  std::vector<double> members, others;
  std::mt19937_64 random(input_.seed);
  for (const int64_t step : view_.steps) {
    std::vector<data::Sequence> in, out;
    std::set<std::vector<int32_t>> of_step;
    for (const PrivateSequence& one : tokens_->sequences()) {
      if (one.step != step) continue;
      of_step.insert(one.sequence.tokens);
      in.push_back(one.sequence);
    }
    for (const PrivateSequence& one : tokens_->sequences()) {
      if (one.step != step && !of_step.contains(one.sequence.tokens)) out.push_back(one.sequence);
    }
    std::shuffle(in.begin(), in.end(), random);
    std::shuffle(out.begin(), out.end(), random);
    in.resize(std::min({in.size(), out.size(), kCandidates / 4}));
    out.resize(in.size());
    if (in.empty()) continue;
    PCMOE_ASSIGN_OR_RETURN(const auto in_scores, ScoreByRows(view_, step, input_.base, in));
    PCMOE_ASSIGN_OR_RETURN(const auto out_scores, ScoreByRows(view_, step, input_.base, out));
    members.insert(members.end(), in_scores.begin(), in_scores.end());
    others.insert(others.end(), out_scores.begin(), out_scores.end());
    if (members.size() >= kCandidates) break;
  }
  if (members.empty()) return absl::OkStatus();
  Add({.id = "membership_rows",
       .title = "was this sequence in this step? by its rows",
       .target = Target::kMembership,
       .metric = "AUC",
       .estimate = AucEstimate(members, others),
       .baselines = {{"chance", 0.5}},
       .more = {{"TPR at 1 % FPR", TprAtFpr(members, others, 0.01)},
                {"members", static_cast<double>(members.size())},
                {"others", static_cast<double>(others.size())}},
       .note = "others are the same victims' sequences of other steps"});
  return absl::OkStatus();
}

void RowsAudit::AttackSizes() {
  const std::vector<bool> right = GuessHomeBySizes(view_);
  if (right.empty()) return;
  std::vector<DocumentHits> documents;
  for (const bool one : right) documents.push_back({one ? 1 : 0, 1});
  Add({.id = "sizes_home",
       .title = "whose text is it? from message sizes alone",
       .target = Target::kProperty,
       .metric = "accuracy",
       .estimate = HitRate(documents),
       .baselines = {{"chance", 1.0 / static_cast<double>(report_.victims.size())}},
       .note =
           "stands for the topic of a batch; the learner knows the sender of every other step"});
}

// What the public model guesses from the true text before each token: no attacker has that, but no
// attack on labels should be praised for less.
absl::Status RowsAudit::LanguageModelPrior() {
  std::vector<data::Sequence> some;
  std::vector<int64_t> index;
  for (const PrivateSequence& one : tokens_->sequences()) {
    if (some.size() == 64) break;
    for (size_t t = 0; t < one.sequence.tokens.size(); ++t) {
      index.push_back(static_cast<int64_t>(index.size()));
    }
    some.push_back(one.sequence);
  }
  PCMOE_ASSIGN_OR_RETURN(const Capture capture, input_.base.Run(some, /*gradients=*/false));
  const double prior = tokens_->Accuracy(index, capture.guess_t, tokens_->label_n()).value;
  label_baselines_.emplace_back("base model given the true text before", prior);
  return absl::OkStatus();
}

absl::StatusOr<Report> RowsAudit::Run() {
  const absl::Time begin = absl::Now();
  report_.exchange = "rows";
  for (const Member& member : input_.coalition) {
    report_.coalition.push_back(input_.names[static_cast<size_t>(member.party)]);
  }
  for (const auto& [party, truth] : input_.truths) {
    report_.victims.push_back(input_.names[static_cast<size_t>(party)]);
  }
  PCMOE_RETURN_IF_ERROR(Prepare());
  PCMOE_RETURN_IF_ERROR(PrepareShadow());
  PCMOE_RETURN_IF_ERROR(LanguageModelPrior());
  mark_ = absl::Now();
  AttackTokens();
  AttackLabels();
  AttackRouting();
  PCMOE_RETURN_IF_ERROR(AttackMembership());
  AttackSizes();
  PCMOE_RETURN_IF_ERROR(AttackKnownAndFinal());
  report_.seconds = absl::ToDoubleSeconds(absl::Now() - begin);
  report_.verdicts = VerdictsOf(report_);
  return std::move(report_);
}

}  // namespace

absl::StatusOr<Report> AuditRows(const AuditInput& input) { return RowsAudit(input).Run(); }

}  // namespace pcmoe::audit
