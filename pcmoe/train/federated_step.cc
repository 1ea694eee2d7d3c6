// pcmoe/train/federated_step.cc: see federated_step.h.
#include "pcmoe/train/federated_step.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "pcmoe/optim/norm.h"

namespace pcmoe::train {
namespace {

using exchange::AbortReason;
using exchange::Session;

// Begin: i64 loss tokens, i64 micro-batches, i64 sweeps over the layers, i64 newest durable
// checkpoint.
struct Begin {
  int64_t loss_tokens = 0;
  int64_t micro_batches = 0;
  int64_t sweeps = 1;
  int64_t durable_step = 0;
};
// Vote: f64 squared gradient norm of backbone and shard together; not finite: this party says no.
struct Vote {
  double sum_of_squares = 0;
};

// Evaluation: f64 value of the metric, i64 one, or zero when the party has none.
struct Metric {
  double value = 0;
  int64_t has_value = 0;
};

constexpr int64_t kMaxMicroBatches = 65535;
// A norm of 1e18: elements whose squares no longer fit fp32 moments, and far from any norm that a
// run comes back from. Beyond it a vote counts as not finite.
constexpr double kMaxSumOfSquares = 1e36;

template <typename Body>
wire::Buffer Encode(const Body& body) {
  wire::Buffer buffer = wire::Buffer::Allocate(sizeof(Body));
  std::memcpy(buffer.writable().data(), &body, sizeof(Body));
  return buffer;
}

// Everybody's body of `kind`, by party; `own` is sent to all others.
template <typename Body>
absl::StatusOr<std::vector<Body>> ExchangeAll(Session& session, wire::MessageKind kind,
                                              const Body& own) {
  std::vector<Body> all(static_cast<size_t>(session.parties()));
  all[static_cast<size_t>(session.self())] = own;
  PCMOE_RETURN_IF_ERROR(session.Broadcast(kind, Encode(own)));
  for (int peer = 0; peer < session.parties(); ++peer) {
    if (peer == session.self()) continue;
    PCMOE_ASSIGN_OR_RETURN(const wire::Buffer payload, session.Await(kind, peer, 0, 0));
    if (payload.size() != sizeof(Body)) {
      return session.FailureStatus({peer, AbortReason::kBadMessage}, "a body of the wrong size");
    }
    std::memcpy(&all[static_cast<size_t>(peer)], payload.bytes().data(), sizeof(Body));
  }
  return all;
}

absl::StatusOr<std::vector<Begin>> BeginAll(Session& session, const Begin& own) {
  PCMOE_ASSIGN_OR_RETURN(std::vector<Begin> all,
                         ExchangeAll(session, wire::MessageKind::kBegin, own));
  for (int peer = 0; peer < session.parties(); ++peer) {
    const Begin& begin = all[static_cast<size_t>(peer)];
    const bool sane = begin.micro_batches >= 0 && begin.micro_batches <= kMaxMicroBatches &&
                      begin.sweeps >= 0 && begin.sweeps <= kMaxMicroBatches &&
                      begin.loss_tokens >= 0 && begin.loss_tokens < (int64_t{1} << 40);
    if (!sane)
      return session.FailureStatus({peer, AbortReason::kBadMessage}, "an impossible begin");
  }
  return all;
}

model::PassPlan PlanOf(const std::vector<Begin>& begins, bool training) {
  model::PassPlan plan{.training = training};
  for (const Begin& begin : begins) {
    plan.micro_batches_p.push_back(begin.micro_batches);
    plan.sweeps_p.push_back(begin.sweeps);
  }
  return plan;
}

// Prepare and commit: everybody tells everybody; the step is committed where all votes are there
// and all are finite. Who dies between sending its votes leaves some committed and some not; they
// meet again at a checkpoint that all have (rendezvous.h), so no party goes on from a step that
// another does not have.
absl::StatusOr<double> VoteAll(Session& session, double sum_of_squares) {
  PCMOE_ASSIGN_OR_RETURN(const std::vector<Vote> votes,
                         ExchangeAll(session, wire::MessageKind::kVote, Vote{sum_of_squares}));
  double total = 0;
  for (int party = 0; party < session.parties(); ++party) {
    const double part = votes[static_cast<size_t>(party)].sum_of_squares;
    if (!(part >= 0 && part <= kMaxSumOfSquares)) {  // NaN is neither
      return session.FailureStatus({party, AbortReason::kNotFinite});
    }
    total += part;
  }
  return std::sqrt(total);
}

}  // namespace

absl::StatusOr<StepReport> RunStep(const StepPlan& plan, std::span<const model::MicroBatch> batches,
                                   Session& session, model::ExpertProvider& experts,
                                   PartyModel& model) {
  Begin own{.micro_batches = static_cast<int64_t>(batches.size()),
            .durable_step = plan.durable_step};
  for (const model::MicroBatch& batch : batches) {
    own.loss_tokens += model::CountLossTokens(batch, model.backbone().options().isolate_documents);
  }
  PCMOE_RETURN_IF_ERROR(session.EnterStep(static_cast<uint64_t>(plan.step), plan.attempt));
  PCMOE_ASSIGN_OR_RETURN(const std::vector<Begin> begins, BeginAll(session, own));
  StepReport report;
  report.common_durable_step = plan.durable_step;
  for (const Begin& begin : begins) {
    report.federation_tokens += begin.loss_tokens;
    report.common_durable_step = std::min(report.common_durable_step, begin.durable_step);
  }
  if (report.federation_tokens == 0) {
    return absl::FailedPreconditionError("no party has a token to train on in this step");
  }
  const double scale = 1.0 / static_cast<double>(report.federation_tokens);
  const double share = static_cast<double>(own.loss_tokens) * scale;
  PCMOE_RETURN_IF_ERROR(experts.BeginPass(PlanOf(begins, /*training=*/true)));
  const model::BalanceWeight balance{.own = plan.balance_coef * share,
                                     .federation = plan.balance_coef};
  PCMOE_ASSIGN_OR_RETURN(report.own,
                         model.backbone().ForwardBackward(batches, experts, scale, balance));
  PCMOE_RETURN_IF_ERROR(experts.FinishPass());

  // A party without tokens in this step (no data, or not its turn) leaves its backbone alone.
  const bool with_backbone = own.loss_tokens > 0;
  double sum_of_squares = model.GradientSumOfSquares(with_backbone);
  if (!std::isfinite(report.own.loss_sum)) sum_of_squares = std::nan("");
  PCMOE_ASSIGN_OR_RETURN(report.grad_norm, VoteAll(session, sum_of_squares));
  experts.Commit();
  model.Step(plan.learning_rate, optim::ClipFactor(report.grad_norm, plan.max_grad_norm),
             with_backbone);
  return report;
}

absl::StatusOr<std::vector<eval::EvalResult>> RunEvaluation(int64_t step, uint32_t attempt,
                                                            std::span<const eval::EvalSet> sets,
                                                            size_t at_once, Session& session,
                                                            model::ExpertProvider& experts,
                                                            PartyModel& model) {
  Begin own{.sweeps = 0};
  for (const eval::EvalSet& set : sets) {
    own.micro_batches += static_cast<int64_t>(set.batches().size());
    own.sweeps += static_cast<int64_t>((set.batches().size() + at_once - 1) / at_once);
  }
  PCMOE_RETURN_IF_ERROR(
      session.EnterStep(static_cast<uint64_t>(step), attempt, Session::Phase::kEvaluation));
  PCMOE_ASSIGN_OR_RETURN(const std::vector<Begin> begins, BeginAll(session, own));
  PCMOE_RETURN_IF_ERROR(experts.BeginPass(PlanOf(begins, /*training=*/false)));
  std::vector<eval::EvalResult> results;
  int64_t first = 0;
  for (const eval::EvalSet& set : sets) {
    eval::EvalResult sum;
    std::vector<std::vector<double>> answers;
    const std::span<const model::MicroBatch> batches = set.batches();
    for (size_t begin = 0; begin < batches.size(); begin += at_once) {
      const size_t count = std::min(at_once, batches.size() - begin);
      PCMOE_ASSIGN_OR_RETURN(model::PassResult part,
                             model.backbone().Evaluate(batches.subspan(begin, count), experts,
                                                       first, set.QueriesOf(begin, count)));
      sum.Add(part, answers);
      first += static_cast<int64_t>(count);
    }
    sum.accuracy = set.Score(answers);
    results.push_back(sum);
  }
  PCMOE_RETURN_IF_ERROR(experts.FinishPass());
  return results;
}

absl::StatusOr<std::optional<double>> ShareMetric(std::optional<double> own, Session& session) {
  PCMOE_ASSIGN_OR_RETURN(const std::vector<Metric> all,
                         ExchangeAll(session, wire::MessageKind::kEvaluation,
                                     Metric{own.value_or(0), own.has_value() ? 1 : 0}));
  double sum = 0;
  int64_t count = 0;
  for (int party = 0; party < session.parties(); ++party) {
    const Metric& metric = all[static_cast<size_t>(party)];
    if (!std::isfinite(metric.value) || metric.has_value < 0 || metric.has_value > 1) {
      return session.FailureStatus({party, AbortReason::kBadMessage}, "an impossible metric");
    }
    sum += metric.has_value == 1 ? metric.value : 0;
    count += metric.has_value;
  }
  if (count == 0) return std::nullopt;
  return sum / static_cast<double>(count);
}

}  // namespace pcmoe::train
