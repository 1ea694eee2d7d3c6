#!/usr/bin/env bash
# tools/lint.sh: clang-format 19 over everything, clang-tidy 19 (.clang-tidy) over the files named, or all.
set -euo pipefail
cd "$(dirname "$0")/.."
mapfile -t files < <(git ls-files '*.cc' '*.h')
clang-format-19 --dry-run --Werror "${files[@]}"
mapfile -t sources < <(if [ $# -gt 0 ]; then printf '%s\n' "$@"; else
  git ls-files 'pcmoe/*.cc' | grep -v kernels_; fi)
printf '%s\n' "${sources[@]}" | xargs -P "$(nproc)" -n 4 clang-tidy-19 -p build/dev --quiet
