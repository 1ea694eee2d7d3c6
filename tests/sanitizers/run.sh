#!/usr/bin/env bash
# tests/sanitizers/run.sh: builds the test programs under a sanitizer and runs them: run.sh asan [CTEST OPTIONS] | tsan
# asan: every test but the one named below. tsan: what has threads of its own (transport, session, federation).
set -euo pipefail
cd "$(dirname "$0")/../.."
preset=${1:?asan or tsan}
shift
cmake --preset "$preset" > /dev/null
# What LibTorch and gRPC keep for the life of the process is no leak of ours.
export ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=1
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
export TSAN_OPTIONS=ignore_noninstrumented_modules=1:halt_on_error=1:suppressions=$PWD/tests/sanitizers/tsan.supp
export OMP_NUM_THREADS=1
jobs=${SANITIZE_JOBS:-$(nproc)}
run() { ctest --test-dir "build/$preset" --output-on-failure --no-tests=error -j1 "$@"; }

case $preset in
  asan)
    # Programs of ctest, less link_proxy: it measures the clock, which a sanitizer slows down.
    mapfile -t programs < <(
      sed -nE 's|^build bin/([a-z0-9_]*_test\|fuzz_replay_[a-z]*): .*|\1|p' build/asan/build.ninja)
    nice ninja -C build/asan -j"$jobs" pcmoe "${programs[@]}"
    run -E '^link_proxy$' "$@"
    ;;
  tsan)
    nice ninja -C build/tsan -j"$jobs" \
      transport_test exchange_session_test federation_{hostile_peer,four_equal_one,weights}_test
    run -R '^(transport|exchange_session|federation_hostile_peer|federation_weights)$'
    # Of the recipes one: the others take the same ways between threads, and each takes minutes here.
    GTEST_FILTER='*/FourEqualOne.*/olmoe_synchronous' run -R '^federation_four_equal_one$'
    ;;
  *)
    echo "run.sh: $preset is not asan or tsan" >&2
    exit 2
    ;;
esac
