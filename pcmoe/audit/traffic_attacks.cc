// pcmoe/audit/traffic_attacks.cc: see traffic_attacks.h.
#include "pcmoe/audit/traffic_attacks.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <random>
#include <tuple>

#include "pcmoe/audit/metrics.h"

namespace pcmoe::audit {
namespace {

constexpr uint16_t kEvaluation = 0x8000;

using BatchKey = std::pair<int64_t, int>;  // step, home

// A share's words of all layers as numbers, double [L, E]: around zero, or from zero up.
at::Tensor Words(const CountsShare& share, int64_t layers, bool with_sign) {
  at::Tensor words = at::empty({static_cast<int64_t>(share.words.size())}, at::kDouble);
  double* out = words.mutable_data_ptr<double>();
  for (const uint32_t word : share.words) {
    *out++ = with_sign ? static_cast<double>(static_cast<int32_t>(word)) : word;
  }
  return words.view({layers, -1});
}

// Rows per layer and expert of every party's and step's batch, double [L, E].
std::map<BatchKey, at::Tensor> BatchCounts(std::span<const Text> texts) {
  std::map<BatchKey, at::Tensor> batches;
  for (const Text& text : texts) {
    at::Tensor& sum = batches[{text.step, text.home}];
    if (!sum.defined()) sum = at::zeros_like(text.counts_le, at::kDouble);
    sum.add_(text.counts_le);
  }
  return batches;
}

// Vectors of length one, along the last dimension; zero stays zero.
at::Tensor UnitVectors(const at::Tensor& of) {
  return of / of.norm(2, /*dim=*/-1, /*keepdim=*/true).clamp_min(1e-300);
}

// Without what points along `unit`, per layer.
at::Tensor Without(const at::Tensor& from_lne, const at::Tensor& unit_l1e) {
  return from_lne - unit_l1e * (from_lne * unit_l1e).sum(-1, /*keepdim=*/true);
}

// Shares of rows per layer, [L*E] float: what a decoder reads.
at::Tensor SharesOfRows(const at::Tensor& counts_le) {
  return (counts_le / (counts_le.sum(1, /*keepdim=*/true) + 1e-9)).flatten().to(at::kFloat);
}

// Counts of consecutive sequences of public text, and the decoder that reads them.
TokenDecoder LearnFromCounts(const Capture& shadow, int64_t length, int64_t vocab,
                             int64_t experts) {
  std::vector<at::Tensor> rows;
  const int64_t count = shadow.tokens_t.size(0) / length;
  for (int64_t n = 0; n < count; ++n) {
    std::vector<at::Tensor> layers;
    for (const at::Tensor& gate : shadow.gate_te) {
      layers.push_back(gate.defined()
                           ? (gate.narrow(0, n * length, length) > 0).sum(0).to(at::kDouble)
                           : at::zeros({experts}, at::kDouble));
    }
    rows.push_back(SharesOfRows(at::stack(layers)));
  }
  const at::Tensor row_of_token = at::stack(rows).repeat_interleave(length, 0);
  return TokenDecoder::Train(row_of_token, shadow.tokens_t.narrow(0, 0, count * length), vocab,
                             {.hidden = 64, .epochs = 6, .learning_rate = 2e-3});
}

}  // namespace

absl::StatusOr<std::vector<CountsShare>> ReadCounts(const Member& member, int64_t words) {
  std::map<BatchKey, const Received*> last;
  for (const Received& message : member.recording->messages()) {
    const wire::MessageHeader& header = message.record.header;
    if (header.kind != wire::MessageKind::kMaskedCounts) continue;
    if ((header.layer & kEvaluation) != 0) continue;
    const Received*& kept = last[{static_cast<int64_t>(header.step), message.record.from}];
    if (kept == nullptr || kept->record.header.attempt <= header.attempt) kept = &message;
  }
  std::vector<CountsShare> shares;
  for (const auto& [key, message] : last) {
    if (message->payload.size() != static_cast<size_t>(words) * sizeof(uint32_t)) {
      return absl::DataLossError(absl::StrCat("the masked counts of party ", key.second, ", step ",
                                              key.first,
                                              " are of another length than layers and experts"));
    }
    CountsShare& share = shares.emplace_back(CountsShare{.step = key.first, .home = key.second});
    share.words.resize(static_cast<size_t>(words));
    std::memcpy(share.words.data(), message->payload.data(), message->payload.size());
  }
  return shares;
}

absl::StatusOr<std::vector<Text>> TextsOf(BaseModel& base,
                                          std::span<const data::Sequence> sequences,
                                          std::span<const std::pair<int64_t, int>> where) {
  PCMOE_ASSIGN_OR_RETURN(const Capture capture, base.Run(sequences, /*gradients=*/false));
  std::vector<Text> texts;
  int64_t first = 0;
  for (size_t n = 0; n < sequences.size(); ++n) {
    const auto length = static_cast<int64_t>(sequences[n].tokens.size());
    Text text{.step = where[n].first, .home = where[n].second};
    text.tokens_t = capture.tokens_t.narrow(0, first, length);
    text.counts_le = at::zeros({base.config().num_layers, base.config().num_experts});
    for (size_t l = 0; l < capture.gate_te.size(); ++l) {
      if (!capture.gate_te[l].defined()) continue;
      text.counts_le[static_cast<int64_t>(l)].copy_(
          (capture.gate_te[l].narrow(0, first, length) > 0).sum(0));
    }
    texts.push_back(std::move(text));
    first += length;
  }
  return texts;
}

BatchesByCounts::BatchesByCounts(std::span<const Text> texts) {
  std::vector<at::Tensor> counts;
  for (const auto& [key, counts_le] : BatchCounts(texts)) {
    keys_.push_back(key);
    counts.push_back(counts_le);
  }
  if (counts.size() < 2) return;
  const at::Tensor counts_lbe = at::stack(counts, 1);
  usual_l1e_ = UnitVectors(counts_lbe.mean(1, /*keepdim=*/true));
  batches_lbe_ = UnitVectors(Without(counts_lbe, usual_l1e_));
}

Scores BatchesByCounts::Match(std::span<const CountsShare> shares) const {
  Scores scores;
  if (!batches_lbe_.defined()) return scores;
  const int64_t layers = usual_l1e_.size(0);
  for (const CountsShare& share : shares) {
    const auto own = std::find(keys_.begin(), keys_.end(), BatchKey{share.step, share.home});
    if (own == keys_.end()) continue;
    const at::Tensor words_l1e = Words(share, layers, /*with_sign=*/true).unsqueeze(1);
    const at::Tensor seen_l1e = UnitVectors(Without(words_l1e, usual_l1e_));
    const at::Tensor cosine_lb = (batches_lbe_ * seen_l1e).sum(-1).contiguous();
    const double* cosine = cosine_lb.const_data_ptr<double>();
    for (int64_t l = 0; l < layers; ++l) {
      const bool routed = usual_l1e_[l].any().item<bool>();
      for (auto key = keys_.begin(); key != keys_.end(); ++key, ++cosine) {
        if (routed) (key == own ? scores.in : scores.out).push_back(*cosine);
      }
    }
  }
  return scores;
}

SequencesByRouting::SequencesByRouting(std::span<const Text> texts, const Capture& shadow,
                                       int64_t length, int64_t vocab, size_t most_a_share)
    : texts_(texts),
      most_a_share_(most_a_share),
      decoder_(
          LearnFromCounts(shadow, length, vocab, texts.empty() ? 1 : texts[0].counts_le.size(1))) {
  const at::Tensor frequency_v = shadow.tokens_t.bincount({}, vocab).to(at::kFloat) + 0.1;
  usual_v_ = (frequency_v / frequency_v.sum()).log();
}

Scores SequencesByRouting::Match(std::span<const CountsShare> shares) const {
  Scores scores;
  if (texts_.empty()) return scores;
  for (const CountsShare& share : shares) {
    const at::Tensor words_le = Words(share, texts_[0].counts_le.size(0), /*with_sign=*/false);
    const at::Tensor gain_v =
        decoder_.LogProbabilities(SharesOfRows(words_le).unsqueeze(0))[0] - usual_v_;
    Scores of_share;
    for (const Text& text : texts_) {
      if (text.home != share.home) continue;
      std::vector<double>& side = text.step == share.step ? of_share.in : of_share.out;
      if (side.size() >= most_a_share_) continue;
      side.push_back(gain_v.index_select(0, text.tokens_t).mean().item<double>());
    }
    // As many of each: neither side has more of one share's chance.
    const size_t count = std::min(of_share.in.size(), of_share.out.size());
    const auto end = static_cast<std::ptrdiff_t>(count);
    scores.in.insert(scores.in.end(), of_share.in.begin(), of_share.in.begin() + end);
    scores.out.insert(scores.out.end(), of_share.out.begin(), of_share.out.begin() + end);
  }
  return scores;
}

std::vector<double> AucsOfFreshMasks(
    std::span<const CountsShare> shares, int draws,
    const std::function<Scores(std::span<const CountsShare>)>& match) {
  std::vector<CountsShare> fresh(shares.begin(), shares.end());
  std::map<int64_t, std::vector<CountsShare*>> by_step;
  for (CountsShare& share : fresh) by_step[share.step].push_back(&share);
  std::mt19937 random(1);
  std::vector<double> aucs;
  for (int draw = 0; draw < draws; ++draw) {
    for (const auto& [step, of_step] : by_step) {
      std::vector<uint32_t>& last = of_step.back()->words;
      for (size_t i = 0; i < last.size(); ++i) {
        if (of_step.size() == 1) last[i] = static_cast<uint32_t>(random());
        for (size_t k = 0; k + 1 < of_step.size(); ++k) {  // what goes to one comes from the last
          const auto mask = static_cast<uint32_t>(random());
          of_step[k]->words[i] += mask;
          last[i] -= mask;
        }
      }
    }
    const Scores scores = match(fresh);
    if (scores.in.empty() || scores.out.empty()) return {};
    aucs.push_back(Auc(scores.in, scores.out));
  }
  return aucs;
}

Scores MatchRowsBySizes(std::span<const MessageSize> sizes, std::span<const Text> texts,
                        const std::set<std::pair<int64_t, int64_t>>& own_experts) {
  std::map<BatchKey, double> rows;
  for (const auto& [key, counts] : BatchCounts(texts)) {
    for (const auto& [layer, expert] : own_experts) {
      rows[key] += counts[layer][expert].item<double>();
    }
  }
  using Place = std::tuple<wire::MessageKind, int64_t, int64_t, int, int>;
  std::map<Place, std::vector<std::pair<double, double>>> places;  // rows, bytes
  for (const MessageSize& message : sizes) {
    const auto found = rows.find({message.step, message.from});
    if (found == rows.end()) continue;
    places[{message.kind, message.layer, message.micro_batch, message.from, message.to}]
        .emplace_back(found->second, static_cast<double>(message.bytes));
  }
  Scores scores;
  for (auto& [place, messages] : places) {
    if (messages.size() < 2) continue;
    std::sort(messages.begin(), messages.end());
    const double median = messages[messages.size() / 2].first;
    // Count times each length, less their sum: exact, so that equal lengths are ties everywhere.
    const auto count = static_cast<double>(messages.size());
    double sum = 0;
    for (const auto& [rows_there, bytes] : messages) sum += bytes;
    for (const auto& [rows_there, bytes] : messages) {
      (rows_there >= median ? scores.in : scores.out).push_back((bytes * count - sum) / count);
    }
  }
  return scores;
}

}  // namespace pcmoe::audit
