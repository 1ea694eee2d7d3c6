// pcmoe/audit/private_tokens.cc: see private_tokens.h.
#include "pcmoe/audit/private_tokens.h"

#include <algorithm>
#include <set>

namespace pcmoe::audit {

PrivateTokens::PrivateTokens(const Truths& truths, const std::vector<int64_t>& steps)
    : truths_(truths) {
  const std::set<int64_t> wanted(steps.begin(), steps.end());
  for (const auto& [party, truth] : truths) {
    for (const auto& [key, batch] : truth.batches()) {
      if (!wanted.contains(batch.step)) continue;
      const auto total = static_cast<int64_t>(batch.tokens.size());
      places_[{party, batch.step, batch.micro_batch}] = {size(), total};
      const int64_t length = batch.length();
      for (int64_t first = 0; first < total; first += length) {
        const auto document = static_cast<int32_t>(sequences_.size());
        PrivateSequence one{.party = party, .step = batch.step};
        one.sequence.tokens.assign(batch.tokens.begin() + first,
                                   batch.tokens.begin() + first + length);
        one.sequence.labels.assign(batch.labels.begin() + first,
                                   batch.labels.begin() + first + length);
        one.sequence.document_starts = {0};
        for (int64_t t = 0; t < length; ++t) {
          const int32_t next =
              t + 1 < length ? one.sequence.labels[static_cast<size_t>(t) + 1] : -1;
          token_n_.push_back(one.sequence.tokens[static_cast<size_t>(t)]);
          label_n_.push_back(next < 0 ? -1 : next);
          document_n_.push_back(document);
        }
        sequences_.push_back(std::move(one));
      }
    }
  }
}

std::vector<std::vector<int64_t>> PrivateTokens::TokensOfRows(const View& view) const {
  std::vector<std::vector<int64_t>> result;
  for (size_t l = 0; l < view.layers.size(); ++l) {
    std::vector<int64_t> index;
    for (const RowSource& source : view.layers[l].sources) {
      index.push_back(-1);
      const auto truth = truths_.find(source.home);
      const auto place = places_.find({source.home, source.step, source.micro_batch});
      if (truth == truths_.end() || place == places_.end()) continue;
      const std::span<const int32_t> rows = truth->second.RowsOf(
          source.step, static_cast<int64_t>(l), source.micro_batch, source.owner);
      if (source.place >= static_cast<int64_t>(rows.size())) continue;
      const int32_t token = rows[static_cast<size_t>(source.place)];
      if (token < 0 || token >= place->second.count) continue;
      index.back() = place->second.first + token;
    }
    result.push_back(std::move(index));
  }
  return result;
}

std::vector<int64_t> PrivateTokens::TokensOfClusters(
    std::span<const Cluster> clusters, const std::vector<std::vector<int64_t>>& token_of_row_lr) {
  std::vector<int64_t> token_c;
  std::map<int64_t, std::pair<int64_t, size_t>> best;  // token -> rows, cluster
  for (size_t c = 0; c < clusters.size(); ++c) {
    std::map<int64_t, int64_t> votes;
    for (const auto& [layer, row] : clusters[c].rows) {
      ++votes[token_of_row_lr[static_cast<size_t>(layer)][static_cast<size_t>(row)]];
    }
    const auto most =
        std::max_element(votes.begin(), votes.end(),
                         [](const auto& a, const auto& b) { return a.second < b.second; });
    token_c.push_back(most == votes.end() ? -1 : most->first);
    if (token_c.back() < 0) continue;
    auto& [rows, cluster] = best[token_c.back()];
    if (most->second > rows) {
      rows = most->second;
      cluster = c;
    }
  }
  for (size_t c = 0; c < token_c.size(); ++c) {
    if (token_c[c] >= 0 && best[token_c[c]].second != c) token_c[c] = -1;
  }
  return token_c;
}

Estimate PrivateTokens::Rate(std::span<const int64_t> index, const at::Tensor& guess,
                             const std::vector<int32_t>& target_n, bool all) const {
  std::vector<DocumentHits> documents(sequences_.size());
  if (all) {
    for (size_t n = 0; n < target_n.size(); ++n) {
      if (target_n[n] >= 0) ++documents[static_cast<size_t>(document_n_[n])].tries;
    }
  }
  const int64_t* guessed = guess.const_data_ptr<int64_t>();
  for (size_t i = 0; i < index.size(); ++i) {
    if (index[i] < 0) continue;
    const auto n = static_cast<size_t>(index[i]);
    if (target_n[n] < 0) continue;
    DocumentHits& document = documents[static_cast<size_t>(document_n_[n])];
    if (!all) ++document.tries;
    if (guessed[i] == target_n[n]) ++document.hits;
  }
  return HitRate(documents);
}

Estimate PrivateTokens::Accuracy(std::span<const int64_t> index, const at::Tensor& guess,
                                 const std::vector<int32_t>& target_n) const {
  return Rate(index, guess, target_n, false);
}

Estimate PrivateTokens::AccuracyOfAll(std::span<const int64_t> index, const at::Tensor& guess,
                                      const std::vector<int32_t>& target_n) const {
  return Rate(index, guess, target_n, true);
}

}  // namespace pcmoe::audit
