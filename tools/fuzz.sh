#!/usr/bin/env bash
# tools/fuzz.sh: runs every fuzz target for some seconds; fails when one finds something.
# Usage: tools/fuzz.sh [SECONDS [TARGET ...]]   (60 seconds each; all targets)
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-60}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(tokenizer config manifest frame safetensors mask ledger policy)
build=build/fuzz

tools/setup.sh build fuzz
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_COMPILER=clang++-19 \
  -DPCMOE_FUZZ=ON >"$build.log" 2>&1 || { cat "$build.log" >&2; exit 1; }
ninja -C "$build" "${targets[@]/#/fuzz_}"

failed=()
for target in "${targets[@]}"; do
  # New inputs go to the build folder; the seeds in fuzz/corpus stay as they are.
  mkdir -p "$build/corpus/$target" "$build/found/$target"
  printf 'fuzz: %s for %s s\n' "$target" "$seconds" >&2
  "$build/bin/fuzz_$target" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 \
    -max_len=65536 -print_final_stats=1 -artifact_prefix="$build/found/$target/" \
    "$build/corpus/$target" "fuzz/corpus/$target" >"$build/$target.log" 2>&1 || failed+=("$target")
  grep -E 'stat::(number_of_executed_units|average_exec_per_sec|peak_rss_mb)|DONE' \
    "$build/$target.log" >&2 || true
done
if [ ${#failed[@]} -gt 0 ]; then
  for target in "${failed[@]}"; do
    tail -n 30 "$build/$target.log" >&2
    printf 'fuzz: %s found something: see %s\n' "$target" "$build/found/$target" >&2
  done
  exit 1
fi
printf 'fuzz: nothing found\n' >&2
