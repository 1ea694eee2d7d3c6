// pcmoe/text/pattern.h: what a text is split at: a literal, a regular expression, a character
// class.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "pcmoe/base/status.h"

struct pcre2_real_code_8;

namespace pcmoe::text {

/// A stretch of a text that matches, or that lies between matches.
struct Match {
  size_t begin = 0;
  size_t end = 0;
  bool is_match = false;
};

/// Which pieces the matches of a delimiter become; names and meaning are those of tokenizer.json.
enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

/// Immutable; const use is thread-safe.
class Pattern {
 public:
  using Predicate = bool (*)(char32_t);

  /// Matches `text`, which must not be empty.
  static Pattern Literal(std::string text);
  /// Matches one character at a time.
  static Pattern Class(Predicate predicate);
  /// Compiles a regular expression written for Oniguruma, as tokenizer.json holds them; classes
  /// are Unicode 16's. INVALID_ARGUMENT when it is broken or uses what PCRE2 means otherwise.
  static absl::StatusOr<Pattern> Regex(std::string_view expression);

  /// All of `text` (valid UTF-8) as stretches in order, matches and what is between them.
  /// INVALID_ARGUMENT when the expression needs more backtracking than is allowed.
  absl::StatusOr<std::vector<Match>> Find(std::string_view text) const;

 private:
  struct FreeCode {
    void operator()(pcre2_real_code_8* code) const;
  };
  using Code = std::unique_ptr<pcre2_real_code_8, FreeCode>;
  using Matcher = std::variant<std::string, Predicate, Code>;
  explicit Pattern(Matcher matcher) : matcher_(std::move(matcher)) {}
  absl::Status FindRegex(std::string_view text, std::vector<Match>& out) const;

  Matcher matcher_;
};

/// The stretches that `behavior` makes of `matches`; those still marked is_match are to be dropped.
std::vector<Match> Arrange(std::vector<Match> matches, SplitBehavior behavior);

}  // namespace pcmoe::text
