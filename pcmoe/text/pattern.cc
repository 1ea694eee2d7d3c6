// pcmoe/text/pattern.cc: see pattern.h.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "pcmoe/text/pattern.h"

#include <pcre2.h>

#include <array>

#include "pcmoe/text/regex_translation.h"
#include "pcmoe/text/unicode.h"

namespace pcmoe::text {
namespace {

// Hostile expressions stop here; those of real tokenizers need a few hundred steps a match.
constexpr uint32_t kMatchLimit = 1'000'000;

template <typename T, void (*Free)(T*)>
struct FreeWith {
  void operator()(T* object) const { Free(object); }
};
template <typename T, void (*Free)(T*)>
using Owned = std::unique_ptr<T, FreeWith<T, Free>>;
using MatchData = Owned<pcre2_match_data, pcre2_match_data_free>;
using MatchContext = Owned<pcre2_match_context, pcre2_match_context_free>;
using CompileContext = Owned<pcre2_compile_context, pcre2_compile_context_free>;

std::string ErrorText(int code) {
  std::array<PCRE2_UCHAR, 256> buffer{};
  pcre2_get_error_message(code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

void AppendMatch(size_t begin, size_t end, std::vector<Match>& out) {
  const size_t before = out.empty() ? 0 : out.back().end;
  if (before != begin) out.push_back({before, begin, false});
  out.push_back({begin, end, true});
}

void FindLiteral(std::string_view text, std::string_view literal, std::vector<Match>& out) {
  for (size_t at = text.find(literal); at != text.npos; at = text.find(literal, out.back().end)) {
    AppendMatch(at, at + literal.size(), out);
  }
}

void FindClass(std::string_view text, Pattern::Predicate predicate, std::vector<Match>& out) {
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    if (predicate(NextCodePoint(text, at))) AppendMatch(begin, at, out);
  }
}

}  // namespace

void Pattern::FreeCode::operator()(pcre2_real_code_8* code) const { pcre2_code_free(code); }

Pattern Pattern::Literal(std::string text) { return Pattern(Matcher(std::move(text))); }

Pattern Pattern::Class(Predicate predicate) { return Pattern(Matcher(predicate)); }

absl::StatusOr<Pattern> Pattern::Regex(std::string_view expression) {
  PCMOE_ASSIGN_OR_RETURN(const std::string translated, TranslateRegex(expression));
  const CompileContext context(pcre2_compile_context_create(nullptr));
  if (context == nullptr) return absl::ResourceExhaustedError("PCRE2 has no memory");
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(context.get(), 100);
  int error = 0;
  PCRE2_SIZE offset = 0;
  Code code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                          PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error,
                          &offset, context.get()));
  if (code == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("the regular expression cannot be used: ", ErrorText(error)));
  }
  // Without JIT (some sandboxes forbid executable memory) the interpreter does the same, slower.
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
  return Pattern(Matcher(std::move(code)));
}

absl::Status Pattern::FindRegex(std::string_view text, std::vector<Match>& out) const {
  const Code& code = std::get<Code>(matcher_);
  const MatchData data(pcre2_match_data_create_from_pattern(code.get(), nullptr));
  const MatchContext context(pcre2_match_context_create(nullptr));
  if (data == nullptr || context == nullptr) {
    return absl::ResourceExhaustedError("PCRE2 has no memory");
  }
  pcre2_set_match_limit(context.get(), kMatchLimit);
  const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(data.get());
  size_t at = 0;
  while (at < text.size()) {
    const int found = pcre2_match(code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()),
                                  text.size(), at, PCRE2_NO_UTF_CHECK, data.get(), context.get());
    if (found == PCRE2_ERROR_NOMATCH) break;
    if (found < 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "the tokenizer's regular expression fails on this text: ", ErrorText(found)));
    }
    // \K can move the start behind the end, or before what has been given out.
    const size_t begin = bounds[0];
    const size_t end = bounds[1];
    if (begin > end || begin < at) {
      return absl::InvalidArgumentError("the tokenizer's regular expression moves backwards");
    }
    AppendMatch(begin, end, out);
    at = end;
    if (begin == end && at < text.size()) NextCodePoint(text, at);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Match>> Pattern::Find(std::string_view text) const {
  std::vector<Match> out;
  if (text.empty()) return out;
  if (const auto* literal = std::get_if<std::string>(&matcher_)) {
    if (!literal->empty()) FindLiteral(text, *literal, out);
  } else if (const auto* predicate = std::get_if<Predicate>(&matcher_)) {
    FindClass(text, *predicate, out);
  } else {
    PCMOE_RETURN_IF_ERROR(FindRegex(text, out));
  }
  const size_t done = out.empty() ? 0 : out.back().end;
  if (done != text.size()) out.push_back({done, text.size(), false});
  return out;
}

std::vector<Match> Arrange(std::vector<Match> matches, SplitBehavior behavior) {
  if (behavior == SplitBehavior::kRemoved) return matches;
  std::vector<Match> out;
  out.reserve(matches.size());
  bool previous = false;
  if (behavior == SplitBehavior::kMergedWithNext) {
    for (size_t i = matches.size(); i-- > 0;) {
      const Match& match = matches[i];
      if (match.is_match && !previous && !out.empty()) {
        out.back().begin = match.begin;
      } else {
        out.push_back({match.begin, match.end, false});
      }
      previous = match.is_match;
    }
    return {out.rbegin(), out.rend()};
  }
  for (const Match& match : matches) {
    const bool join = behavior == SplitBehavior::kContiguous           ? match.is_match == previous
                      : behavior == SplitBehavior::kMergedWithPrevious ? match.is_match && !previous
                                                                       : false;
    if (join && !out.empty()) {
      out.back().end = match.end;
    } else {
      out.push_back({match.begin, match.end, false});
    }
    previous = match.is_match;
  }
  return out;
}

}  // namespace pcmoe::text
