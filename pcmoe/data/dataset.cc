// pcmoe/data/dataset.cc: see dataset.h.
#include "pcmoe/data/dataset.h"

#include <algorithm>
#include <functional>
#include <unordered_set>

namespace pcmoe::data {
namespace {

void Append(const std::vector<int32_t>& ids, bool counts, EncodedRow& row) {
  for (const int32_t id : ids) {
    row.ids.push_back(id);
    row.labels.push_back(counts ? id : kIgnoredLabel);
  }
}

// Keeps `count` tokens: the last ones of a row with a completion, the first ones of a plain text.
void Cut(size_t count, EncodedRow& row) {
  row.cut = true;
  if (!row.supervised) {
    row.ids.resize(count);
    row.labels.resize(count);
    return;
  }
  row.DropFront(static_cast<int64_t>(row.ids.size() - count));
}

int64_t CountedLabels(const std::vector<int32_t>& labels) {
  if (labels.empty()) return 0;
  return std::count_if(labels.begin() + 1, labels.end(), [](int32_t label) { return label >= 0; });
}

std::string Rows(int64_t count) { return absl::StrCat(count, count == 1 ? " row" : " rows"); }

}  // namespace

void EncodedRow::DropFront(int64_t count) {
  ids.erase(ids.begin(), ids.begin() + count);
  labels.erase(labels.begin(), labels.begin() + count);
  prompt_tokens = std::max<int64_t>(0, prompt_tokens - count);
}

std::string DatasetCounts::Losses(int64_t sequence_length) const {
  std::string text;
  if (cut > 0) absl::StrAppend(&text, Rows(cut), " cut at ", sequence_length, " tokens");
  if (without_loss > 0) {
    absl::StrAppend(&text, text.empty() ? "" : ", ", Rows(without_loss), " without a loss token");
  }
  return text;
}

absl::StatusOr<EncodedRow> EncodeRow(const Document& document, const text::Tokenizer& tokenizer,
                                     const DatasetOptions& options) {
  EncodedRow row{.supervised = document.completion.has_value()};
  PCMOE_ASSIGN_OR_RETURN(const std::vector<int32_t> prompt,
                         tokenizer.Encode(document.prompt, options.pack.add_special_tokens));
  Append(prompt, !row.supervised || options.loss_on_prompt, row);
  row.prompt_tokens = static_cast<int64_t>(prompt.size());
  if (row.supervised) {
    PCMOE_ASSIGN_OR_RETURN(const std::vector<int32_t> completion,
                           tokenizer.Encode(*document.completion));
    Append(completion, true, row);
  }
  if (!row.ids.empty() && options.pack.eos_id >= 0) Append({options.pack.eos_id}, true, row);
  return row;
}

absl::StatusOr<Dataset> LoadDataset(const std::filesystem::path& path,
                                    const text::Tokenizer& tokenizer,
                                    const DatasetOptions& options) {
  PCMOE_ASSIGN_OR_RETURN(Packer packer, Packer::Create(options.pack));
  PCMOE_ASSIGN_OR_RETURN(JsonlReader reader, JsonlReader::Open(path, options.jsonl));
  Dataset dataset;
  DatasetCounts& counts = dataset.counts;
  std::unordered_set<size_t> seen;
  const auto most = static_cast<size_t>(options.pack.sequence_length);
  while (true) {
    PCMOE_ASSIGN_OR_RETURN(const std::optional<Document> document, reader.NextDocument());
    if (!document) break;
    auto row = EncodeRow(*document, tokenizer, options);
    if (!row.ok()) {
      return WithContext(row.status(), absl::StrCat(path.string(), ":", reader.line()));
    }
    ++counts.rows;
    counts.supervised += row->supervised ? 1 : 0;
    const std::string whole =
        absl::StrCat(document->prompt, "\x1f", document->completion.value_or(""));
    counts.duplicates += seen.insert(std::hash<std::string>()(whole)).second ? 0 : 1;
    counts.longest = std::max(counts.longest, static_cast<int64_t>(row->ids.size()));
    const bool flows = options.batching == Batching::kPacked && !row->supervised;
    if (!flows && row->ids.size() > most) Cut(most, *row);
    const int64_t counted = CountedLabels(row->labels);
    counts.cut += row->cut ? 1 : 0;
    counts.without_loss += counted == 0 ? 1 : 0;
    counts.tokens += static_cast<int64_t>(row->ids.size());
    counts.loss_tokens += counted;
    if (row->ids.empty()) continue;
    if (flows) {
      packer.AddFlowing(row->ids);
    } else if (options.batching == Batching::kPacked) {
      packer.AddWhole(row->ids, row->labels);
    } else {
      dataset.sequences.push_back({std::move(row->ids), std::move(row->labels), {0}});
    }
  }
  if (options.batching == Batching::kPacked) dataset.sequences = std::move(packer).Finish();
  return dataset;
}

}  // namespace pcmoe::data
