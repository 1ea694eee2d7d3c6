// pcmoe/text/decoder.cc: see decoder.h.
#include "pcmoe/text/decoder.h"

#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/str_join.h"
#include "pcmoe/text/pre_tokenizer.h"
#include "pcmoe/text/unicode.h"

namespace pcmoe::text {
namespace {

// The byte that a token like "<0x4F>" stands for.
std::optional<char> ByteOf(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return std::nullopt;
  if (!absl::ascii_isxdigit(token[3]) || !absl::ascii_isxdigit(token[4])) return std::nullopt;
  const auto value = [](char c) { return absl::ascii_isdigit(c) ? c - '0' : (c | 32) - 'a' + 10; };
  return static_cast<char>(value(token[3]) << 4 | value(token[4]));
}

// The bytes behind a byte-level token; the token itself when a character stands for no byte.
std::string BytesOf(const std::string& token) {
  std::string bytes;
  for (size_t at = 0; at < token.size();) {
    const int byte = PrintableToByte(NextCodePoint(token, at));
    if (byte < 0) return token;
    bytes.push_back(static_cast<char>(byte));
  }
  return bytes;
}

}  // namespace

absl::StatusOr<Decoder> Decoder::FromJson(const Json& json) {
  Decoder result;
  if (!json.is_null()) {
    PCMOE_RETURN_IF_ERROR(AppendSteps(json, "decoders", &Decoder::StepFromJson, result.steps_));
  }
  return result;
}

absl::StatusOr<Decoder::Step> Decoder::StepFromJson(const std::string& type, const Json& json) {
  if (type == "ByteLevel") return Step(ByteLevel{});
  if (type == "ByteFallback") return Step(ByteFallback{});
  if (type == "Fuse") return Step(Fuse{});
  if (type == "Replace") return Replacement::FromJson(json);
  if (type == "Strip") {
    PCMOE_ASSIGN_OR_RETURN(std::string content, StringField(json, "content"));
    PCMOE_ASSIGN_OR_RETURN(const int64_t start, IntegerField(json, "start", 0, 1 << 20));
    PCMOE_ASSIGN_OR_RETURN(const int64_t stop, IntegerField(json, "stop", 0, 1 << 20));
    size_t end = 0;
    if (!content.empty()) NextCodePoint(content, end);
    if (content.empty() || end != content.size()) {
      return absl::InvalidArgumentError("'content' of Strip is not one character");
    }
    return Step(Strip{std::move(content), static_cast<size_t>(start), static_cast<size_t>(stop)});
  }
  if (type == "Metaspace") {
    Metaspace step{"", true};
    PCMOE_ASSIGN_OR_RETURN(step.replacement, StringField(json, "replacement"));
    PCMOE_ASSIGN_OR_RETURN(const bool prefix, BoolField(json, "add_prefix_space", true));
    const Json& scheme = FieldOf(json, "prepend_scheme");
    step.drops_first = scheme.is_string() ? scheme != "never" : prefix;
    if (step.replacement.empty()) return absl::InvalidArgumentError("'replacement' is empty");
    return Step(std::move(step));
  }
  return absl::InvalidArgumentError(absl::StrCat("the type '", type, "' is not supported"));
}

Decoder::Tokens Decoder::Join(const ByteLevel&, const Tokens& tokens) {
  std::string bytes;
  for (const std::string& token : tokens) bytes += BytesOf(token);
  return {LossyUtf8(bytes)};
}

Decoder::Tokens Decoder::Join(const ByteFallback&, Tokens tokens) {
  Tokens out;
  std::string bytes;
  const auto flush = [&] {
    if (bytes.empty()) return;
    if (FindInvalidUtf8(bytes) == std::string::npos) {
      out.push_back(bytes);
    } else {
      for (size_t i = 0; i < bytes.size(); ++i) out.emplace_back("\xEF\xBF\xBD");
    }
    bytes.clear();
  };
  for (std::string& token : tokens) {
    if (const std::optional<char> byte = ByteOf(token)) {
      bytes.push_back(*byte);
      continue;
    }
    flush();
    out.push_back(std::move(token));
  }
  flush();
  return out;
}

std::string Decoder::Change(const Strip& step, std::string_view token) {
  for (size_t i = 0; i < step.start && token.starts_with(step.content); ++i) {
    token.remove_prefix(step.content.size());
  }
  for (size_t i = 0; i < step.stop && token.ends_with(step.content); ++i) {
    token.remove_suffix(step.content.size());
  }
  return std::string(token);
}

std::string Decoder::Change(const Metaspace& step, std::string_view token, bool first) {
  std::string out;
  for (size_t at = 0; at < token.size();) {
    if (token.substr(at).starts_with(step.replacement)) {
      if (!first || !step.drops_first) out.push_back(' ');
      at += step.replacement.size();
    } else {
      out.push_back(token[at++]);
    }
  }
  return out;
}

absl::StatusOr<Decoder::Tokens> Decoder::ApplyStep(const Step& step, Tokens tokens,
                                                   size_t max_bytes) {
  if (const auto* bytes = std::get_if<ByteLevel>(&step)) return Join(*bytes, tokens);
  if (const auto* bytes = std::get_if<ByteFallback>(&step)) return Join(*bytes, std::move(tokens));
  if (std::holds_alternative<Fuse>(step)) return Tokens{absl::StrJoin(tokens, "")};
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (const auto* replace = std::get_if<Replacement>(&step)) {
      PCMOE_ASSIGN_OR_RETURN(tokens[i], replace->Apply(tokens[i], max_bytes));
      max_bytes -= tokens[i].size();
    } else if (const auto* strip = std::get_if<Strip>(&step)) {
      tokens[i] = Change(*strip, tokens[i]);
    } else {
      tokens[i] = Change(std::get<Metaspace>(step), tokens[i], i == 0);
    }
  }
  return tokens;
}

absl::StatusOr<std::string> Decoder::Apply(std::vector<std::string> tokens) const {
  if (steps_.empty()) return absl::StrJoin(tokens, " ");
  size_t bytes = 0;
  for (const std::string& token : tokens) bytes += token.size();
  for (const Step& step : steps_) {
    PCMOE_ASSIGN_OR_RETURN(tokens, ApplyStep(step, std::move(tokens), MaxBytesFrom(bytes)));
  }
  return absl::StrJoin(tokens, "");
}

}  // namespace pcmoe::text
