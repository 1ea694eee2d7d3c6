// pcmoe/text/unicode.cc: see unicode.h.
#include "pcmoe/text/unicode.h"

#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>
#include <unicode/uchar.h>
#include <unicode/uniset.h>

#include <algorithm>
#include <array>
#include <memory>
#include <utility>

namespace pcmoe::text {
namespace {

constexpr char32_t kReplacement = 0xFFFD;

struct Decoded {
  char32_t code_point;
  size_t length;  // Bytes of the character, or of the maximal broken part.
  bool ok;
};

// Table 3-7 of the Unicode standard: which second bytes a first byte allows.
Decoded DecodeAt(std::string_view bytes, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(bytes[i]); };
  const uint8_t first = byte(at);
  if (first < 0x80) return {first, 1, true};
  if (first < 0xC2 || first > 0xF4) return {kReplacement, 1, false};
  const size_t length = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  uint8_t low = 0x80;
  uint8_t high = 0xBF;
  if (first == 0xE0) low = 0xA0;
  if (first == 0xED) high = 0x9F;
  if (first == 0xF0) low = 0x90;
  if (first == 0xF4) high = 0x8F;
  char32_t code_point = first & (0xFFU >> (length + 1));
  for (size_t i = 1; i < length; ++i) {
    if (at + i >= bytes.size() || byte(at + i) < low || byte(at + i) > high) {
      return {kReplacement, i, false};
    }
    code_point = code_point << 6 | (byte(at + i) & 0x3FU);
    low = 0x80;
    high = 0xBF;
  }
  return {code_point, length, true};
}

// The tables of Hugging Face's normalizer are Unicode 9's.
const icu::UnicodeSet* AssignedInUnicode9() {
  static const std::unique_ptr<const icu::UnicodeSet> set = [] {
    UErrorCode error = U_ZERO_ERROR;
    auto result = std::make_unique<icu::UnicodeSet>(UNICODE_STRING_SIMPLE("[:age=9.0:]"), error);
    result->freeze();
    return U_SUCCESS(error) ? std::move(result) : nullptr;
  }();
  return set.get();
}

const icu::Normalizer2* BaseNormalizer(NormalForm form) {
  UErrorCode error = U_ZERO_ERROR;
  const icu::Normalizer2* result = nullptr;
  switch (form) {
    case NormalForm::kNfc:
      result = icu::Normalizer2::getNFCInstance(error);
      break;
    case NormalForm::kNfd:
      result = icu::Normalizer2::getNFDInstance(error);
      break;
    case NormalForm::kNfkc:
      result = icu::Normalizer2::getNFKCInstance(error);
      break;
    case NormalForm::kNfkd:
      result = icu::Normalizer2::getNFKDInstance(error);
      break;
  }
  return U_SUCCESS(error) ? result : nullptr;
}

}  // namespace

size_t FindInvalidUtf8(std::string_view bytes) {
  for (size_t at = 0; at < bytes.size();) {
    const Decoded next = DecodeAt(bytes, at);
    if (!next.ok) return at;
    at += next.length;
  }
  return std::string_view::npos;
}

char32_t NextCodePoint(std::string_view bytes, size_t& at) {
  const Decoded next = DecodeAt(bytes, at);
  at += next.length;
  return next.code_point;
}

void AppendUtf8(char32_t code_point, std::string& out) {
  const auto push = [&](char32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (code_point < 0x80) {
    push(code_point);
  } else if (code_point < 0x800) {
    push(0xC0 | code_point >> 6);
    push(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    push(0xE0 | code_point >> 12);
    push(0x80 | (code_point >> 6 & 0x3F));
    push(0x80 | (code_point & 0x3F));
  } else {
    push(0xF0 | code_point >> 18);
    push(0x80 | (code_point >> 12 & 0x3F));
    push(0x80 | (code_point >> 6 & 0x3F));
    push(0x80 | (code_point & 0x3F));
  }
}

std::string LossyUtf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  for (size_t at = 0; at < bytes.size();) AppendUtf8(NextCodePoint(bytes, at), out);
  return out;
}

bool IsWhitespace(char32_t c) {
  return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

bool IsNumeric(char32_t c) {
  // Numbers that Unicode 15.1 to 17 assigned, which ICU 72 does not know.
  constexpr std::array<std::pair<char32_t, char32_t>, 9> kYounger{{{0x10D40, 0x10D49},
                                                                   {0x116D0, 0x116E3},
                                                                   {0x11BF0, 0x11BF9},
                                                                   {0x11DE0, 0x11DE9},
                                                                   {0x16130, 0x16139},
                                                                   {0x16D70, 0x16D79},
                                                                   {0x16FF4, 0x16FF6},
                                                                   {0x1CCF0, 0x1CCF9},
                                                                   {0x1E5F1, 0x1E5FA}}};
  if (c < 0x80) return c >= '0' && c <= '9';
  return (U_MASK(u_charType(static_cast<UChar32>(c))) & U_GC_N_MASK) != 0 ||
         std::any_of(kYounger.begin(), kYounger.end(),
                     [c](const auto& range) { return c >= range.first && c <= range.second; });
}

bool IsPunctuation(char32_t c) {
  const auto point = static_cast<UChar32>(c);
  if (c < 0x80) return c > ' ' && c < 0x7F && !u_isalnum(point);
  if (c == 0x166D || c == 0x111C9) return true;  // They became something else after Unicode 8.
  UVersionInfo age{};
  u_charAge(point, age);
  return age[0] <= 8 && (U_MASK(u_charType(point)) & U_GC_P_MASK) != 0;
}

bool IsWordCharacter(char32_t c) {
  const auto point = static_cast<UChar32>(c);
  constexpr uint32_t kMask = U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK;
  return u_hasBinaryProperty(point, UCHAR_ALPHABETIC) || (U_MASK(u_charType(point)) & kMask) != 0 ||
         u_hasBinaryProperty(point, UCHAR_JOIN_CONTROL);
}

absl::StatusOr<std::string> Normalize(std::string_view text, NormalForm form) {
  const bool ascii =
      std::all_of(text.begin(), text.end(), [](char c) { return static_cast<uint8_t>(c) < 0x80; });
  if (ascii) return std::string(text);
  const icu::Normalizer2* base = BaseNormalizer(form);
  const icu::UnicodeSet* known = AssignedInUnicode9();
  if (base == nullptr || known == nullptr) {
    return absl::InternalError("ICU's normalization data is missing; install libicu72");
  }
  const icu::FilteredNormalizer2 normalizer(*base, *known);
  UErrorCode error = U_ZERO_ERROR;
  const icu::StringPiece piece(text.data(), static_cast<int32_t>(text.size()));
  if (normalizer.isNormalizedUTF8(piece, error) && U_SUCCESS(error)) return std::string(text);
  error = U_ZERO_ERROR;
  std::string out;
  icu::StringByteSink<std::string> sink(&out);
  normalizer.normalizeUTF8(0, piece, sink, nullptr, error);
  if (U_FAILURE(error)) {
    return absl::InternalError(absl::StrCat("ICU cannot normalize: ", u_errorName(error)));
  }
  return out;
}

}  // namespace pcmoe::text
