// fuzz/check.h: stops a fuzz target when a promise is broken, whatever the build type.
#pragma once

#include <cstdio>
#include <cstdlib>

/// Aborts naming the promise; the fuzzer keeps the input.
#define FUZZ_CHECK(condition)                                              \
  do {                                                                     \
    if (!(condition)) {                                                    \
      std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                        \
    }                                                                      \
  } while (false)
