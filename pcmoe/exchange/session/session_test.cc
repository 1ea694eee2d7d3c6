// pcmoe/exchange/rows/rows_provider_test.cc: experts elsewhere compute what experts at home do.
#include <gtest/gtest.h>

namespace {}
