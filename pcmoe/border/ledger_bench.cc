// pcmoe/border/ledger_bench.cc: what a record costs.
#include <unistd.h>

#include <filesystem>

#include "benchmark/benchmark.h"
#include "pcmoe/border/ledger.h"

namespace pcmoe::border {
namespace {

void AppendRecord(benchmark::State& state) {
  const auto path =
      std::filesystem::temp_directory_path() / absl::StrCat("pcmoe_ledger_bench_", ::getpid());
  {
    auto ledger = Ledger::Open(path, {"a", "hospital-north"});
    for (auto _ : state) {
      const auto status =
          (*ledger)->Append(1, {wire::MessageKind::kExpertRows, 1200, 0, 15, 3}, 1234567);
      if (!status.ok()) state.SkipWithError("cannot append");
    }
  }
  std::filesystem::remove(path);
}
BENCHMARK(AppendRecord);

}  // namespace
}  // namespace pcmoe::border
