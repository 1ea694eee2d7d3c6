// fuzz/tokenizer_fuzz.cc: any tokenizer.json is refused, or encodes and decodes without harm.
#include <cstdint>
#include <string>
#include <string_view>

#include "fuzz/check.h"
#include "pcmoe/text/tokenizer.h"
#include "pcmoe/text/unicode.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using pcmoe::text::Tokenizer;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const auto tokenizer = Tokenizer::FromJson(bytes, "fuzz");
  if (!tokenizer.ok()) return 0;
  // The file's own text as well: it holds the file's tokens.
  for (const std::string_view text :
       {std::string_view("Hello, w\u00f6rld  \n\u4f60\u597d e\u0301 </s> 123\u2581\u2581a"),
        bytes}) {
    const auto ids = tokenizer->Encode(text.substr(0, 4096), true);
    if (!ids.ok()) continue;
    for (const int32_t id : *ids) FUZZ_CHECK(id >= 0 && id < tokenizer->vocab_size());
    const auto decoded = tokenizer->Decode(*ids);
    if (decoded.ok()) {
      FUZZ_CHECK(pcmoe::text::FindInvalidUtf8(*decoded) == std::string_view::npos);
    }
  }
  return 0;
}
