// fuzz/config_fuzz.cc: any config.json is refused, or gives a config that passes Validate.
#include <cstdint>
#include <string_view>

#include "fuzz/check.h"
#include "pcmoe/model/config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto config =
      pcmoe::model::ParseConfig({reinterpret_cast<const char*>(data), size}, "fuzz");
  if (config.ok()) FUZZ_CHECK(config->Validate().ok());
  return 0;
}
