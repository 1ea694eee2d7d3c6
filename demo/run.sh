#!/usr/bin/env bash
# demo/run.sh: four parties train one model on this machine, and the table says how it compares.
set -euo pipefail
cd "$(dirname "$0")/.."
pcmoe=${PCMOE:-build/release/bin/pcmoe}
if [[ ! -x $pcmoe ]]; then
  echo "demo/run.sh: $pcmoe is missing; type: make demo" >&2
  exit 4
fi
.venv/bin/python tools/make_demo_data.py demo/data
# --replace removes demo/out only if a sim made it.
exec "$pcmoe" sim -n 4 --config demo/demo.toml --out demo/out --replace \
  --compare central,aggregated,rows,alone,alone_fits "$@"
