// pcmoe/eval/eval_set.cc: see eval_set.h.
#include "pcmoe/eval/eval_set.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "absl/strings/str_join.h"
#include "pcmoe/eval/batches.h"

namespace pcmoe::eval {
namespace {

bool StartsWith(const std::vector<int32_t>& ids, std::span<const int32_t> prefix) {
  return ids.size() >= prefix.size() && std::equal(prefix.begin(), prefix.end(), ids.begin());
}

}  // namespace

void EvalResult::Add(model::PassResult& pass, std::vector<std::vector<double>>& answers) {
  loss_sum += pass.loss_sum;
  loss_tokens += pass.loss_tokens;
  for (std::vector<double>& answer : pass.log_probs) answers.push_back(std::move(answer));
}

absl::StatusOr<EvalSet> EvalSet::Load(const std::filesystem::path& path,
                                      const text::Tokenizer& tokenizer, const Options& options) {
  EvalSet set;
  PCMOE_RETURN_IF_ERROR(set.ReadLabels(path, tokenizer, options));
  PCMOE_RETURN_IF_ERROR(set.Read(path, tokenizer, options));
  return set;
}

absl::Status EvalSet::ReadLabels(const std::filesystem::path& path,
                                 const text::Tokenizer& tokenizer, const Options& options) {
  labels_ = options.labels;
  if (labels_.empty()) {
    PCMOE_ASSIGN_OR_RETURN(data::JsonlReader reader,
                           data::JsonlReader::Open(path, options.dataset.jsonl));
    std::set<std::string> found;
    while (true) {
      PCMOE_ASSIGN_OR_RETURN(const auto document, reader.NextDocument());
      if (!document) break;
      if (document->is_label) found.insert(*document->completion);
    }
    labels_.assign(found.begin(), found.end());
  }
  for (const std::string& label : labels_) {
    PCMOE_ASSIGN_OR_RETURN(std::vector<int32_t> ids, tokenizer.Encode(label));
    if (ids.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("the label '", label, "' has no token"));
    }
    label_ids_.push_back(std::move(ids));
  }
  return absl::OkStatus();
}

absl::Status EvalSet::Read(const std::filesystem::path& path, const text::Tokenizer& tokenizer,
                           const Options& options) {
  PCMOE_ASSIGN_OR_RETURN(data::Packer plain, data::Packer::Create(options.dataset.pack));
  PCMOE_ASSIGN_OR_RETURN(data::JsonlReader reader,
                         data::JsonlReader::Open(path, options.dataset.jsonl));
  size_t longest_label = 0;
  for (const auto& ids : label_ids_) longest_label = std::max(longest_label, ids.size());
  const auto most = static_cast<size_t>(options.dataset.pack.sequence_length);
  std::vector<data::Sequence> sequences;
  while (true) {
    PCMOE_ASSIGN_OR_RETURN(const auto document, reader.NextDocument());
    if (!document) break;
    ++counts_.rows;
    auto encoded = data::EncodeRow(*document, tokenizer, options.dataset);
    if (!encoded.ok()) {
      return WithContext(encoded.status(), absl::StrCat(path.string(), ":", reader.line()));
    }
    data::EncodedRow& row = *encoded;
    if (!row.supervised) {
      plain.AddFlowing(row.ids);
      continue;
    }
    ++counts_.supervised;
    // Every label has to fit behind the text.
    const size_t completion = row.ids.size() - static_cast<size_t>(row.prompt_tokens);
    const size_t room = document->is_label ? std::max(completion, longest_label + 1) : completion;
    const size_t whole = static_cast<size_t>(row.prompt_tokens) + room;
    if (whole > most) {
      row.DropFront(std::min(static_cast<int64_t>(whole - most), row.prompt_tokens));
      ++counts_.cut;
    }
    if (document->is_label && row.prompt_tokens == 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          path.string(), ":", reader.line(),
          ": has no token before its label, so no label can be likelier than another; give it a "
          "text, a label_separator, or a longer sequence_length"));
    }
    if (!document->is_label) {
      sequences.push_back({std::move(row.ids), std::move(row.labels), {0}});
      continue;
    }
    const auto label = std::find(labels_.begin(), labels_.end(), *document->completion);
    if (label == labels_.end()) {
      return absl::InvalidArgumentError(absl::StrCat(path.string(), ":", reader.line(),
                                                     ": the label is none of ",
                                                     absl::StrJoin(labels_, ", ")));
    }
    const auto place = static_cast<size_t>(label - labels_.begin());
    std::vector<int32_t> prompt(row.ids.begin(), row.ids.begin() + row.prompt_tokens);
    AddExample(row, place, std::move(prompt), sequences);
  }
  for (data::Sequence& sequence : std::move(plain).Finish())
    sequences.push_back(std::move(sequence));
  MakeBatches(std::move(sequences), options.batch_tokens);
  return absl::OkStatus();
}

// The row's own sequence answers for every label as far as the label begins like its own; for the
// rest, and for labels of several tokens, sequences without loss are added.
void EvalSet::AddExample(const data::EncodedRow& row, size_t label, std::vector<int32_t> prompt,
                         std::vector<data::Sequence>& sequences) {
  const auto length = static_cast<int64_t>(prompt.size());
  std::vector<std::pair<std::vector<int32_t>, size_t>> known = {
      {std::vector<int32_t>(row.ids.begin() + length, row.ids.end()), sequences.size()}};
  sequences.push_back({row.ids, row.labels, {0}});
  Example example{.label = label};
  for (const std::vector<int32_t>& ids : label_ids_) {
    auto& asked = example.labels.emplace_back();
    for (size_t k = 0; k < ids.size(); ++k) {
      const std::span<const int32_t> before(ids.data(), k);
      auto found = std::find_if(known.begin(), known.end(),
                                [&](const auto& one) { return StartsWith(one.first, before); });
      if (found == known.end()) {
        known.emplace_back(std::vector<int32_t>(ids.begin(), ids.end() - 1), sequences.size());
        found = known.end() - 1;
        data::Sequence more{.tokens = prompt, .document_starts = {0}};
        more.tokens.insert(more.tokens.end(), ids.begin(), ids.end() - 1);
        more.labels.assign(more.tokens.size(), data::kIgnoredLabel);
        sequences.push_back(std::move(more));
      }
      asked.push_back({found->second, length - 1 + static_cast<int64_t>(k), ids[k]});
    }
  }
  examples_.push_back(std::move(example));
}

void EvalSet::MakeBatches(std::vector<data::Sequence> sequences, int64_t batch_tokens) {
  std::vector<size_t> order(sequences.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return sequences[a].tokens.size() < sequences[b].tokens.size();
  });
  std::vector<data::Sequence> sorted;
  std::vector<size_t> place_of(sequences.size());
  for (size_t i = 0; i < order.size(); ++i) {
    place_of[order[i]] = i;
    sorted.push_back(std::move(sequences[order[i]]));
    counts_.tokens += static_cast<int64_t>(sorted.back().tokens.size());
  }
  std::vector<std::pair<size_t, int64_t>> home;  // of a sorted sequence: micro-batch, first row
  for (const auto& piece : CutByTokens(sorted, batch_tokens)) {
    batches_.push_back(ToMicroBatch(piece));
    const int64_t length = batches_.back().tokens_bs.size(1);
    for (size_t i = 0; i < piece.size(); ++i) {
      home.emplace_back(batches_.size() - 1, static_cast<int64_t>(i) * length);
    }
  }
  if (examples_.empty()) return;
  // Queries by row, so that those of one row share its logits.
  struct Placed {
    size_t batch;
    int64_t row;
    int64_t token;
    size_t number;
  };
  std::vector<Placed> placed;
  for (const Example& example : examples_) {
    for (const auto& label : example.labels) {
      for (const Asked& asked : label) {
        const auto& [batch, first] = home[place_of[asked.sequence]];
        placed.push_back({batch, first + asked.position, asked.token, placed.size()});
      }
    }
  }
  std::stable_sort(placed.begin(), placed.end(), [](const Placed& a, const Placed& b) {
    return std::pair(a.batch, a.row) < std::pair(b.batch, b.row);
  });
  queries_.resize(batches_.size());
  answers_.resize(placed.size());
  for (const Placed& one : placed) {
    answers_[one.number] = {one.batch, queries_[one.batch].size()};
    queries_[one.batch].push_back({one.row, one.token});
  }
}

std::optional<Accuracy> EvalSet::Score(const std::vector<std::vector<double>>& log_probs) const {
  if (examples_.empty()) return std::nullopt;
  Accuracy accuracy;
  std::map<size_t, int64_t> commonest;
  size_t next = 0;
  for (const Example& example : examples_) {
    std::vector<double> sums, normalised;
    for (size_t l = 0; l < labels_.size(); ++l) {
      double sum = 0;
      for (size_t k = 0; k < example.labels[l].size(); ++k) {
        const auto& [batch, place] = answers_[next++];
        sum += log_probs[batch][place];
      }
      sums.push_back(sum);
      normalised.push_back(sum / static_cast<double>(labels_[l].size()));
    }
    const auto best = [](const std::vector<double>& scores) {
      return static_cast<size_t>(std::max_element(scores.begin(), scores.end()) - scores.begin());
    };
    ++accuracy.examples;
    accuracy.right += best(sums) == example.label ? 1 : 0;
    accuracy.right_normalised += best(normalised) == example.label ? 1 : 0;
    accuracy.majority = std::max(accuracy.majority, ++commonest[example.label]);
  }
  return accuracy;
}

}  // namespace pcmoe::eval
