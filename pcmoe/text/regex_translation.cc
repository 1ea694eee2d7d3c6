// pcmoe/text/regex_translation.cc: see regex_translation.h.
#include "pcmoe/text/regex_translation.h"

#include <array>
#include <cstdint>

#include "absl/strings/ascii.h"
#include "absl/strings/str_format.h"

namespace pcmoe::text {
namespace {

// Longer expressions are nobody's; PCRE2's own limit would cost memory first.
constexpr size_t kMaxBytes = 1 << 16;

struct Addition {
  uint32_t first;
  uint32_t last;
  std::string_view category;
};
constexpr Addition kAdditions[] = {
#include "pcmoe/text/unicode_16.inc"
};

// PCRE2's own \s also holds U+180E, which is white space no more since Unicode 6.3.
constexpr std::string_view kWhitespace =
    "\\x09-\\x0d\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}"
    "\\x{3000}";

// The members of a category, as a class holds them; `name` like "L" or "Nd".
std::string Category(std::string_view name) {
  std::string members = absl::StrCat("\\p{", std::string(name), "}");
  for (const Addition& addition : kAdditions) {
    if (addition.category.substr(0, name.size()) != name) continue;
    absl::StrAppendFormat(&members, "\\x{%x}-\\x{%x}", addition.first, addition.last);
  }
  return members;
}

std::string WordCharacters() {
  // The ranges are letters in circles and squares: alphabetic, but of category So.
  return absl::StrCat(Category("L"), Category("M"), Category("N"), Category("Pc"),
                      "\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}"
                      "\\x{1f170}-\\x{1f189}");
}

absl::Status Unsupported(absl::string_view what) {
  return absl::InvalidArgumentError(
      absl::StrCat("the regular expression uses ", what, ", which is not supported"));
}

class Translator {
 public:
  explicit Translator(std::string_view in) : in_(in) {}

  absl::StatusOr<std::string> Run() {
    while (at_ < in_.size()) {
      const char c = in_[at_];
      if (c == '\\') {
        PCMOE_RETURN_IF_ERROR(Escape());
        continue;
      }
      if (in_class_) {
        if (c == '[') return Unsupported("a class within a class");
        if (in_.substr(at_, 2) == "&&") return Unsupported("an intersection of classes");
        if (c == ']') in_class_ = false;
      } else if (c == '[') {
        in_class_ = true;
        CopyClassStart();
        continue;
      } else if (in_.substr(at_, 2) == "(*") {
        return Unsupported("a verb");
      }
      out_.push_back(c);
      ++at_;
    }
    return std::move(out_);
  }

 private:
  // '[', '[^', and a ']' that stands first and so is a member.
  void CopyClassStart() {
    out_.push_back(in_[at_++]);
    if (at_ < in_.size() && in_[at_] == '^') out_.push_back(in_[at_++]);
    if (at_ < in_.size() && in_[at_] == ']') {
      out_ += "\\]";
      ++at_;
    }
  }

  absl::Status AppendMembers(const std::string& members, bool negated) {
    if (in_class_ && negated) return Unsupported("a negated property within a class");
    if (in_class_) {
      out_ += members;
    } else {
      absl::StrAppend(&out_, negated ? "[^" : "[", members, "]");
    }
    return absl::OkStatus();
  }

  absl::Status Property(bool negated) {
    const size_t close = in_.find('}', at_);
    if (at_ >= in_.size() || in_[at_] != '{' || close == in_.npos) {
      return Unsupported("a property without braces");
    }
    std::string_view name = in_.substr(at_ + 1, close - at_ - 1);
    at_ = close + 1;
    if (!name.empty() && name[0] == '^') {
      negated = !negated;
      name.remove_prefix(1);
    }
    constexpr std::string_view kMajor = "LNMPSZC";
    const bool category = !name.empty() && name.size() <= 2 &&
                          kMajor.find(name[0]) != kMajor.npos &&
                          (name.size() == 1 || absl::ascii_islower(name[1]));
    if (category) return AppendMembers(Category(name), negated);
    for (const char c : name) {
      if (!absl::ascii_isalnum(c) && c != '_') return Unsupported("an unknown property");
    }
    return AppendMembers(absl::StrCat(negated ? "\\P{" : "\\p{", std::string(name), "}"), false);
  }

  absl::Status Escape() {
    if (at_ + 1 >= in_.size()) return Unsupported("a backslash at its end");
    const char c = in_[at_ + 1];
    at_ += 2;
    switch (c) {
      case 's':
      case 'S':
        return AppendMembers(std::string(kWhitespace), c == 'S');
      case 'w':
      case 'W':
        return AppendMembers(WordCharacters(), c == 'W');
      case 'd':
      case 'D':
        return AppendMembers(Category("Nd"), c == 'D');
      case 'p':
      case 'P':
        return Property(c == 'P');
      default:
        break;
    }
    constexpr std::string_view kSame = "nrtfaex0";
    const bool literal = !absl::ascii_isalnum(c);
    if (!literal && kSame.find(c) == kSame.npos) {
      return Unsupported(absl::StrCat("the escape \\", std::string(1, c)));
    }
    out_.push_back('\\');
    out_.push_back(c);
    return absl::OkStatus();
  }

  std::string_view in_;
  std::string out_;
  size_t at_ = 0;
  bool in_class_ = false;
};

}  // namespace

absl::StatusOr<std::string> TranslateRegex(std::string_view expression) {
  if (expression.empty() || expression.size() > kMaxBytes) {
    return absl::InvalidArgumentError(absl::StrCat("a regular expression has ", expression.size(),
                                                   " bytes; 1 to ", kMaxBytes, " are read"));
  }
  return Translator(expression).Run();
}

}  // namespace pcmoe::text
