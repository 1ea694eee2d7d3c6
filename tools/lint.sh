#!/usr/bin/env bash
# tools/lint.sh: clang-format 19 over everything, clang-tidy 19 (.clang-tidy) over the sources named, or
# all that build/dev compiles.
set -euo pipefail
cd "$(dirname "$0")/.."
mapfile -t files < <(git ls-files '*.cc' '*.h')
clang-format-19 --dry-run --Werror "${files[@]}"
mapfile -t sources < <(if [ $# -gt 0 ]; then printf '%s\n' "$@"; else
  git ls-files '*.cc' | grep -Fx -f <(sed -n "s|^ *\"file\": \"$PWD/\(.*\)\",*$|\1|p" build/dev/compile_commands.json); fi)
# A test that reads an empty optional fails, as it should; tests and benchmarks have one thread when they
# call std::system or std::getenv; and the analyzer takes gmock's shared matchers for leaks.
tests='-bugprone-unchecked-optional-access,-concurrency-mt-unsafe,-clang-analyzer-cplusplus.NewDeleteLeaks'
status=0
for source in "${sources[@]}"; do
  checks=$([[ $source =~ (_test|_bench)\.cc$|^(tests|bench|fuzz)/ ]] && echo "$tests" || echo "")
  printf '%s\0' --checks="$checks" "$source"
done | xargs -0 -P "${LINT_JOBS:-$(nproc)}" -n 2 clang-tidy-19 -p build/dev --quiet || status=1
exit $status
