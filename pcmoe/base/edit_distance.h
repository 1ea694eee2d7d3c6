// pcmoe/base/edit_distance.h: how far a misspelt word is from a known one.
#pragma once

#include <cstddef>
#include <string_view>

namespace pcmoe::base {

/// Levenshtein distance: the fewest bytes to insert, remove or replace that turn `a` into `b`. Time
/// is a.size() * b.size(), so bound words that come from outside. Thread-safe.
size_t EditDistance(std::string_view a, std::string_view b);

}  // namespace pcmoe::base
