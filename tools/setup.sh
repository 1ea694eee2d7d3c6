#!/usr/bin/env bash
# tools/setup.sh: installs what building, testing and the demo need on Debian 12; does nothing when
# everything is there. Usage: tools/setup.sh build|lint|fuzz ...
set -euo pipefail
cd "$(dirname "$0")/.."

BUILD_PACKAGES=(build-essential cmake ninja-build ccache pkg-config python3 python3-venv
  libgrpc++-dev libgrpc-dev libabsl-dev libssl-dev libsodium-dev libxxhash-dev
  libcli11-dev libtomlplusplus-dev nlohmann-json3-dev libspdlog-dev libfmt-dev
  libgtest-dev libgmock-dev libbenchmark-dev libpcre2-dev libicu-dev libjs-chart.js
  bible-kjv bible-kjv-text openssl procps)
LINT_PACKAGES=(clang-format-19 clang-tidy-19)
FUZZ_PACKAGES=(clang-19 libclang-rt-19-dev)

say() { printf 'setup: %s\n' "$*" >&2; }

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"
  elif command -v sudo >/dev/null 2>&1; then sudo "$@"
  else say "these packages need root: $*"; say "install sudo, or run the command as root"; exit 1
  fi
}

install_packages() {
  local missing=()
  local package
  for package in "$@"; do
    [ "$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null)" = "install ok installed" ] ||
      missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  say "installing with apt: ${missing[*]}"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    "${missing[@]}" >/dev/null
}

# One environment for LibTorch (the torch wheel) and the oracles of the tests. The stamp is written
# last, so an interrupted installation is done again.
install_python() {
  local stamp=.venv/installed wanted
  wanted=$(sha256sum requirements.txt | cut -d' ' -f1)
  [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && return 0
  say "creating .venv and installing with pip: $(grep -v '^#' requirements.txt | tr '\n' ' ')"
  [ -x .venv/bin/python ] || /usr/bin/python3 -m venv .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
  printf '%s' "$wanted" > "$stamp"
}

for part in "$@"; do
  case "$part" in
    build) install_packages "${BUILD_PACKAGES[@]}"; install_python ;;
    lint) install_packages "${LINT_PACKAGES[@]}" ;;
    fuzz) install_packages "${FUZZ_PACKAGES[@]}" ;;
    *) say "unknown part '$part'; parts: build lint fuzz"; exit 4 ;;
  esac
done
