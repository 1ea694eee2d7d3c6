// pcmoe/transport/grpc_bench.cc: round trips and bytes a second between two channels of one
// process.
#include <thread>

#include "benchmark/benchmark.h"
#include "pcmoe/transport/test_parties.h"

namespace pcmoe::transport {
namespace {

// Party 1 sends every message back; one message is under way.
void Echo(benchmark::State& state) {
  const TestParties parties(2);
  border::EgressGate gate({}, nullptr);
  const auto a = *CreateGrpcChannel(parties.Options(0));
  const auto b = *CreateGrpcChannel(parties.Options(1));
  if (!AllUp(*a) || !AllUp(*b)) return state.SkipWithError("no connection");
  const auto soon = [] { return absl::Now() + absl::Seconds(10); };
  std::thread echo([&] {
    while (auto event = b->Next(soon())) {
      if (event->kind == Event::Kind::kPeerDown) return;
      if (event->kind != Event::Kind::kMessage) continue;
      b->Send(*gate.Release(0, event->message.header, event->message.payload), soon())
          .IgnoreError();
    }
  });
  const wire::Buffer payload = wire::Buffer::Allocate(static_cast<size_t>(state.range(0)));
  for (auto _ : state) {
    a->Send(*gate.Release(1, {wire::MessageKind::kVote}, payload), soon()).IgnoreError();
    if (!NextOf(*a, Event::Kind::kMessage).has_value()) state.SkipWithError("no answer");
  }
  state.SetBytesProcessed(2 * state.range(0) * static_cast<int64_t>(state.iterations()));
  a->Close(soon());
  echo.join();
}
BENCHMARK(Echo)->Arg(64)->Arg(64 << 10)->Arg(1 << 20)->Arg(16 << 20)->UseRealTime();

}  // namespace
}  // namespace pcmoe::transport
