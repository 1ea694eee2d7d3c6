#!/bin/bash
# tests/sanitizers/run.sh: builds and runs the federation's C++ tests under a sanitizer: run.sh asan|tsan
set -euo pipefail
cd "$(dirname "$0")/../.."
preset=${1:?asan or tsan}
tests=(exchange_session_test federation_hostile_peer_test federation_four_equal_one_test)
cmake --preset "$preset" >/dev/null
nice ninja -C "build/$preset" -j2 "${tests[@]}"
export OMP_NUM_THREADS=1
# What LibTorch and gRPC keep for the life of the process is no leak of ours.
export ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=1
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
export TSAN_OPTIONS=ignore_noninstrumented_modules=1:halt_on_error=1:suppressions=$PWD/tests/sanitizers/tsan.supp
for test in "${tests[@]}"; do
  echo "$preset $test"
  "build/$preset/bin/$test" --gtest_brief=1
done
