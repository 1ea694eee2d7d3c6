// pcmoe/text/text_bench.cc: bytes a second of encoding, one core. Needs PCMOE_BENCH_TOKENIZER (a
// tokenizer.json) and PCMOE_BENCH_TEXT (a text file) in the environment; says so without them.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <string>

#include "pcmoe/base/file.h"
#include "pcmoe/text/tokenizer.h"

namespace pcmoe::text {
namespace {

// Argument: bytes of a document.
void BM_Encode(benchmark::State& state) {
  const char* file = std::getenv("PCMOE_BENCH_TOKENIZER");
  const char* text_file = std::getenv("PCMOE_BENCH_TEXT");
  if (file == nullptr || text_file == nullptr) {
    return state.SkipWithError("set PCMOE_BENCH_TOKENIZER and PCMOE_BENCH_TEXT");
  }
  const auto tokenizer = Tokenizer::Load(file);
  const auto text = base::ReadFile(text_file);
  if (!tokenizer.ok() || !text.ok()) return state.SkipWithError("cannot read the files");
  const auto size = static_cast<size_t>(state.range(0));
  int64_t bytes = 0;
  for (auto _ : state) {
    for (size_t at = 0; at < text->size(); at += size) {
      // A cut within a character is invalid UTF-8, refused quickly; texts of the bench are ASCII.
      benchmark::DoNotOptimize(tokenizer->Encode(std::string_view(*text).substr(at, size)));
    }
    bytes += static_cast<int64_t>(text->size());
  }
  state.SetBytesProcessed(bytes);
}
BENCHMARK(BM_Encode)->Arg(128)->Arg(4096)->Arg(1 << 22)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace pcmoe::text
