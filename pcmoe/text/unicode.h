// pcmoe/text/unicode.h: UTF-8 in and out, the character classes that tokenizers use, normal forms.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "pcmoe/base/status.h"

namespace pcmoe::text {

/// The byte offset of the first byte that is not part of well-formed UTF-8 (no surrogates, nothing
/// overlong, nothing above U+10FFFF); npos when all of `bytes` is well formed.
size_t FindInvalidUtf8(std::string_view bytes);

/// The code point at `bytes[at]`, and moves `at` behind it. `bytes` must be valid UTF-8 and `at` be
/// the start of a character; broken input gives U+FFFD and never reads outside.
char32_t NextCodePoint(std::string_view bytes, size_t& at);

/// Appends `code_point` to `out` as UTF-8.
void AppendUtf8(char32_t code_point, std::string& out);

/// `bytes` with every maximal broken part replaced by U+FFFD, as Rust's from_utf8_lossy does.
std::string LossyUtf8(std::string_view bytes);

/// Unicode's White_Space.
bool IsWhitespace(char32_t code_point);
/// General category N (digits, letter numbers, fractions) as of Unicode 17.
bool IsNumeric(char32_t code_point);
/// General category P as of Unicode 8 (so Hugging Face's Punctuation), or ASCII punctuation, which
/// holds symbols like '$' too.
bool IsPunctuation(char32_t code_point);
/// \w of a Unicode regex: alphabetic, mark, decimal digit, connector punctuation, join control.
bool IsWordCharacter(char32_t code_point);

/// The four normal forms of Unicode.
enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };

/// `text` (valid UTF-8) in a normal form. Characters younger than Unicode 9 count as unassigned, as
/// they do in Hugging Face's tokenizers, so that ids agree. INTERNAL when ICU's data is missing.
absl::StatusOr<std::string> Normalize(std::string_view text, NormalForm form);

}  // namespace pcmoe::text
