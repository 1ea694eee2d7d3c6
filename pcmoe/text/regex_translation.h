// pcmoe/text/regex_translation.h: from the regular expressions of tokenizer.json to PCRE2's.
#pragma once

#include <string>
#include <string_view>

#include "pcmoe/base/status.h"

namespace pcmoe::text {

/// `expression`, written for Oniguruma, so that PCRE2 10.42 with UTF and UCP means the same: \s, \w
/// and Unicode categories are spelled out up to Unicode 16. INVALID_ARGUMENT for constructs that
/// the two read differently (\h, \b, class intersections, ...), which no known tokenizer uses.
absl::StatusOr<std::string> TranslateRegex(std::string_view expression);

}  // namespace pcmoe::text
