// fuzz/manifest_fuzz.cc: any manifest is refused, or survives being written and read again.
#include <cstdint>
#include <string_view>

#include "fuzz/check.h"
#include "pcmoe/federation/manifest.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using pcmoe::federation::ParseManifest;
  const auto manifest = ParseManifest({reinterpret_cast<const char*>(data), size});
  if (!manifest.ok()) return 0;
  FUZZ_CHECK(manifest->Validate().ok());
  const auto again = ParseManifest(manifest->CanonicalJson());
  FUZZ_CHECK(again.ok() && *again == *manifest);
  return 0;
}
