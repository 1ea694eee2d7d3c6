// pcmoe/text/pre_tokenizer.cc: see pre_tokenizer.h.
#include "pcmoe/text/pre_tokenizer.h"

#include <array>

#include "pcmoe/text/steps.h"
#include "pcmoe/text/unicode.h"

namespace pcmoe::text {
namespace {

// GPT-2's pattern (openai/gpt-2, src/encoder.py).
constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

constexpr bool IsPrintable(int byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

// The 68 bytes without a glyph of their own get U+0100 onwards, in order.
constexpr std::array<char32_t, 256> MakeTable() {
  std::array<char32_t, 256> table{};
  char32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    table[byte] = IsPrintable(byte) ? static_cast<char32_t>(byte) : next++;
  }
  return table;
}
constexpr std::array<char32_t, 256> kPrintable = MakeTable();

absl::StatusOr<SplitBehavior> BehaviorField(const Json& json) {
  PCMOE_ASSIGN_OR_RETURN(const std::string name, StringField(json, "behavior"));
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  return absl::InvalidArgumentError(absl::StrCat("the behavior '", name, "' is not supported"));
}

absl::Status Split(PieceText& pieces, const Pattern& pattern, SplitBehavior behavior, bool invert) {
  std::vector<Piece> out;
  out.reserve(pieces.pieces.size());
  for (const Piece& piece : pieces.pieces) {
    if (piece.id >= 0) {
      out.push_back(piece);
      continue;
    }
    PCMOE_ASSIGN_OR_RETURN(std::vector<Match> matches, pattern.Find(pieces.Of(piece)));
    if (invert) {
      for (Match& match : matches) match.is_match = !match.is_match;
    }
    for (const Match& match : Arrange(std::move(matches), behavior)) {
      if (match.is_match || match.begin == match.end) continue;
      out.push_back({piece.begin + match.begin, piece.begin + match.end, -1,
                     piece.at_start && match.begin == 0});
    }
  }
  pieces.pieces = std::move(out);
  return absl::OkStatus();
}

// Rewrites the text of all pieces: `rewrite(piece, text, out)` appends what becomes of one.
template <typename Function>
void Rewrite(PieceText& pieces, Function rewrite) {
  std::string out;
  out.reserve(pieces.text.size() + pieces.text.size() / 2);
  for (Piece& piece : pieces.pieces) {
    const size_t begin = out.size();
    if (piece.id < 0) rewrite(piece, pieces.Of(piece), out);
    piece.begin = begin;
    piece.end = out.size();
  }
  pieces.text = std::move(out);
}

void MapBytes(PieceText& pieces) {
  Rewrite(pieces, [](const Piece&, std::string_view text, std::string& out) {
    for (const char c : text) AppendUtf8(kPrintable[static_cast<uint8_t>(c)], out);
  });
}

}  // namespace

char32_t ByteToPrintable(uint8_t byte) { return kPrintable[byte]; }

int PrintableToByte(char32_t code_point) {
  static const std::array<int16_t, 0x144> table = [] {
    std::array<int16_t, 0x144> result{};
    result.fill(-1);
    for (int byte = 0; byte < 256; ++byte) result[kPrintable[byte]] = static_cast<int16_t>(byte);
    return result;
  }();
  return code_point < table.size() ? table[code_point] : -1;
}

absl::StatusOr<PreTokenizer> PreTokenizer::FromJson(const Json& json) {
  PreTokenizer result;
  if (!json.is_null()) {
    PCMOE_RETURN_IF_ERROR(
        AppendSteps(json, "pretokenizers", &PreTokenizer::StepFromJson, result.steps_));
  }
  return result;
}

absl::StatusOr<PreTokenizer::Step> PreTokenizer::SplitFromJson(const Json& json) {
  PCMOE_ASSIGN_OR_RETURN(const SplitBehavior behavior, BehaviorField(json));
  PCMOE_ASSIGN_OR_RETURN(const bool invert, BoolField(json, "invert", false));
  PCMOE_ASSIGN_OR_RETURN(Pattern pattern, PatternField(json));
  return SplitStep{std::move(pattern), behavior, invert};
}

absl::StatusOr<PreTokenizer::Step> PreTokenizer::MetaspaceFromJson(const Json& json) {
  MetaspaceStep step;
  PCMOE_ASSIGN_OR_RETURN(step.replacement, StringField(json, "replacement"));
  if (step.replacement.empty()) return absl::InvalidArgumentError("'replacement' is empty");
  PCMOE_ASSIGN_OR_RETURN(const bool old_prefix, BoolField(json, "add_prefix_space", true));
  std::string scheme = old_prefix ? "always" : "never";
  if (FieldOf(json, "prepend_scheme").is_string()) {
    PCMOE_ASSIGN_OR_RETURN(scheme, StringField(json, "prepend_scheme"));
  }
  if (scheme != "always" && scheme != "first" && scheme != "never") {
    return absl::InvalidArgumentError("'prepend_scheme' is not always, first or never");
  }
  step.prepend = scheme == "always"  ? Prepend::kAlways
                 : scheme == "first" ? Prepend::kFirst
                                     : Prepend::kNever;
  PCMOE_ASSIGN_OR_RETURN(const bool split, BoolField(json, "split", true));
  if (split) step.pattern = Pattern::Literal(step.replacement);
  return step;
}

absl::StatusOr<PreTokenizer::Step> PreTokenizer::ByteLevelFromJson(const Json& json) {
  ByteLevelStep step;
  PCMOE_ASSIGN_OR_RETURN(step.add_prefix_space, BoolField(json, "add_prefix_space", true));
  PCMOE_ASSIGN_OR_RETURN(const bool use_regex, BoolField(json, "use_regex", true));
  if (use_regex) {
    PCMOE_ASSIGN_OR_RETURN(step.pattern, Pattern::Regex(kGpt2Pattern));
  }
  return step;
}

absl::StatusOr<PreTokenizer::Step> PreTokenizer::StepFromJson(const std::string& type,
                                                              const Json& json) {
  if (type == "ByteLevel") return ByteLevelFromJson(json);
  if (type == "Split") return SplitFromJson(json);
  if (type == "Metaspace") return MetaspaceFromJson(json);
  if (type == "Digits") {
    PCMOE_ASSIGN_OR_RETURN(const bool each, BoolField(json, "individual_digits", false));
    const SplitBehavior behavior = each ? SplitBehavior::kIsolated : SplitBehavior::kContiguous;
    return Step(SplitStep{Pattern::Class(&IsNumeric), behavior, false});
  }
  if (type == "Punctuation") {
    SplitBehavior behavior = SplitBehavior::kIsolated;
    if (!FieldOf(json, "behavior").is_null()) {
      PCMOE_ASSIGN_OR_RETURN(behavior, BehaviorField(json));
    }
    return Step(SplitStep{Pattern::Class(&IsPunctuation), behavior, false});
  }
  if (type == "WhitespaceSplit") {
    return Step(SplitStep{Pattern::Class(&IsWhitespace), SplitBehavior::kRemoved, false});
  }
  return absl::InvalidArgumentError(absl::StrCat("the type '", type, "' is not supported"));
}

absl::Status PreTokenizer::Run(const ByteLevelStep& step, PieceText& pieces) {
  if (step.add_prefix_space) {
    Rewrite(pieces, [](const Piece&, std::string_view text, std::string& out) {
      if (text.front() != ' ') out.push_back(' ');
      out += text;
    });
  }
  if (step.pattern) {
    PCMOE_RETURN_IF_ERROR(Split(pieces, *step.pattern, SplitBehavior::kIsolated, false));
  }
  MapBytes(pieces);
  return absl::OkStatus();
}

absl::Status PreTokenizer::Run(const MetaspaceStep& step, PieceText& pieces) {
  Rewrite(pieces, [&](const Piece& piece, std::string_view text, std::string& out) {
    const bool prepend =
        step.prepend == Prepend::kAlways || (step.prepend == Prepend::kFirst && piece.at_start);
    if (prepend && text.front() != ' ' && !text.starts_with(step.replacement)) {
      out += step.replacement;
    }
    for (const char c : text) {
      if (c == ' ') {
        out += step.replacement;
      } else {
        out.push_back(c);
      }
    }
  });
  if (!step.pattern) return absl::OkStatus();
  return Split(pieces, *step.pattern, SplitBehavior::kMergedWithNext, false);
}

absl::Status PreTokenizer::Apply(PieceText& pieces) const {
  for (const Step& step : steps_) {
    if (const auto* split = std::get_if<SplitStep>(&step)) {
      PCMOE_RETURN_IF_ERROR(Split(pieces, split->pattern, split->behavior, split->invert));
    } else if (const auto* bytes = std::get_if<ByteLevelStep>(&step)) {
      PCMOE_RETURN_IF_ERROR(Run(*bytes, pieces));
    } else {
      PCMOE_RETURN_IF_ERROR(Run(std::get<MetaspaceStep>(step), pieces));
    }
  }
  return absl::OkStatus();
}

}  // namespace pcmoe::text
