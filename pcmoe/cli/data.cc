// pcmoe/cli/data.cc: `pcmoe data preview`: what a file becomes: which tokens carry loss, how long
// rows are, what would be cut.
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"
#include "pcmoe/cli/commands.h"
#include "pcmoe/data/dataset.h"

namespace pcmoe::cli {
namespace {

using Json = nlohmann::ordered_json;

struct Flags {
  std::string file, tokenizer, loss_on = "completion", color = "auto";
  data::JsonlOptions jsonl;
  int64_t rows = 5, sequence_length = 256;
  bool json = false;
};

constexpr char kLossColor[] = "\x1b[30;42m";  // black on green
constexpr char kPlainColor[] = "\x1b[2m";
constexpr char kReset[] = "\x1b[0m";

// Control characters would act on the terminal.
std::string Visible(const std::string& text) {
  std::string shown;
  for (const char c : text) {
    if (c == '\n') {
      shown += "\u21b5";
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      absl::StrAppendFormat(&shown, "\\x%02x", static_cast<unsigned char>(c));
    } else {
      shown += c;
    }
  }
  return shown;
}

absl::Status PrintRow(const data::EncodedRow& row, int64_t number, const text::Tokenizer& tokenizer,
                      bool color) {
  std::string line = absl::StrFormat("row %d, %d tokens: ", number, row.ids.size());
  bool open = false;
  for (size_t t = 0; t < row.ids.size();) {
    // Tokens of one kind are decoded together: a character may have several.
    const bool counts = t > 0 && row.labels[t] >= 0;
    size_t end = t + 1;
    while (end < row.ids.size() && (row.labels[end] >= 0) == counts) ++end;
    PCMOE_ASSIGN_OR_RETURN(const std::string text,
                           tokenizer.Decode(std::span(row.ids).subspan(t, end - t)));
    if (color) {
      absl::StrAppend(&line, counts ? kLossColor : kPlainColor, Visible(text), kReset);
    } else {
      absl::StrAppend(&line, counts ? "[[" : "", Visible(text), counts ? "]]" : "");
    }
    open = open || counts;
    t = end;
  }
  std::cout << line << (open ? "" : "  (no loss token)") << "\n";
  return absl::OkStatus();
}

absl::Status Preview(const Flags& flags) {
  PCMOE_ASSIGN_OR_RETURN(const text::Tokenizer tokenizer, text::Tokenizer::Load(flags.tokenizer));
  const data::DatasetOptions options{
      .jsonl = flags.jsonl,
      .pack = {.sequence_length = static_cast<int32_t>(flags.sequence_length),
               .eos_id = tokenizer.EosId().value_or(-1)},
      .batching = data::Batching::kGroupByLength,
      .loss_on_prompt = flags.loss_on == "all"};
  const bool color = flags.color == "always" || (flags.color == "auto" && ::isatty(1) == 1);
  PCMOE_ASSIGN_OR_RETURN(data::JsonlReader reader,
                         data::JsonlReader::Open(flags.file, flags.jsonl));
  for (int64_t shown = 0; !flags.json && shown < flags.rows; ++shown) {
    PCMOE_ASSIGN_OR_RETURN(const auto document, reader.NextDocument());
    if (!document) break;
    PCMOE_ASSIGN_OR_RETURN(const data::EncodedRow row,
                           data::EncodeRow(*document, tokenizer, options));
    PCMOE_RETURN_IF_ERROR(PrintRow(row, shown + 1, tokenizer, color));
  }
  PCMOE_ASSIGN_OR_RETURN(const data::Dataset dataset,
                         data::LoadDataset(flags.file, tokenizer, options));
  const data::DatasetCounts& counts = dataset.counts;
  std::vector<size_t> lengths;
  for (const data::Sequence& sequence : dataset.sequences)
    lengths.push_back(sequence.tokens.size());
  std::sort(lengths.begin(), lengths.end());
  const auto at = [&lengths](double share) {
    return lengths.empty()
               ? 0
               : lengths[static_cast<size_t>(share * static_cast<double>(lengths.size() - 1))];
  };
  if (flags.json) {
    std::cout << Json{{"rows", counts.rows},
                      {"with_label_or_completion", counts.supervised},
                      {"tokens", counts.tokens},
                      {"loss_tokens", counts.loss_tokens},
                      {"length",
                       {{"median", at(0.5)}, {"p95", at(0.95)}, {"longest", counts.longest}}},
                      {"duplicates", counts.duplicates},
                      {"cut", counts.cut},
                      {"without_loss_token", counts.without_loss}}
                     .dump()
              << "\n";
    return absl::OkStatus();
  }
  std::cout << absl::StrFormat(
      "%d rows, %d with a label or completion; %d tokens, %d carry loss%s\n"
      "length in tokens: median %d, 95 %% up to %d, longest %d\n"
      "%d duplicates; %d cut at %d tokens; %d without a loss token\n",
      counts.rows, counts.supervised, counts.tokens, counts.loss_tokens,
      color ? absl::StrCat(" (", kLossColor, "like this", kReset, ")") : " ([[like this]])",
      at(0.5), at(0.95), counts.longest, counts.duplicates, counts.cut, flags.sequence_length,
      counts.without_loss);
  return absl::OkStatus();
}

}  // namespace

void AddData(CLI::App& app, absl::Status& result) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* data = app.add_subcommand("data", "Look at data before training on it");
  data->require_subcommand(1);
  CLI::App* preview = data->add_subcommand(
      "preview", "Show which tokens carry loss, and count lengths, duplicates and what is cut");
  preview->add_option("file", flags->file, "JSONL file")->required();
  preview->add_option("--tokenizer", flags->tokenizer, "tokenizer.json")->required();
  preview->add_option("--rows", flags->rows, "Rows to show")->check(CLI::Range(0, 1000));
  preview->add_option("--sequence-length", flags->sequence_length, "Most tokens of a row")
      ->check(CLI::Range(2, 1 << 20));
  preview->add_option("--loss-on", flags->loss_on, "completion or all")
      ->check(CLI::IsMember({"completion", "all"}));
  preview->add_option("--text-column", flags->jsonl.column, "Key of the text");
  preview->add_option("--label-column", flags->jsonl.label_column, "Key of the label");
  preview->add_option("--label-separator", flags->jsonl.label_separator, "Between text and label");
  preview->add_option("--color", flags->color, "auto, always or never")
      ->check(CLI::IsMember({"auto", "always", "never"}));
  preview->add_flag("--json", flags->json, "The counts as one JSON object; no text");
  preview->callback([flags, &result] { result = Preview(*flags); });
}

}  // namespace pcmoe::cli
