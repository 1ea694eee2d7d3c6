# bench/hivemind_peer.py: the figures against hivemind 1.1.12, which gets an environment of its own.
"""rows/s of one remote layer: bench/remote_layer.cc against bench/hivemind_side.py, in turn."""
import subprocess
import sys

import lib

VENV = lib.ROOT / ".venv-hivemind"
SECONDS = 4


def python():
    """The peers' Python; installs what is missing."""
    program, stamp = VENV / "bin/python", VENV / "installed"
    if not stamp.exists():
        print(f"bench: installing hivemind into {VENV.name}", file=sys.stderr)
        subprocess.run(["/usr/bin/python3", "-m", "venv", VENV], check=True)
        for line in (lib.ROOT / "bench/requirements-hivemind.txt").read_text().split():
            subprocess.run([program, "-m", "pip", "install", "-q", line], check=True)
        stamp.touch()
    return program


def figure(name, kind, rows, ours, must):
    """`ours`: arguments of remote_layer before the seconds."""
    peer = python()
    results = lib.alternate({
        "pcmoe": lambda: lib.run_json([lib.binary("remote_layer"), *ours, SECONDS],
                                      timeout=120)["rows_per_s"],
        "hivemind": lambda: lib.run_json([peer, lib.ROOT / "bench/hivemind_side.py", kind, rows,
                                          SECONDS], timeout=120,
                                         stderr=subprocess.DEVNULL)["rows_per_s"]})
    middle = lib.medians(results)
    lib.table(["side", "rows/s (median)"], [[k, f"{v:.0f}"] for k, v in middle.items()])
    value = middle["pcmoe"] / middle["hivemind"]
    return lib.report(name, value, must, "x rows/s",
                      {"runs": results, "rows": rows, "machine": lib.machine()})
