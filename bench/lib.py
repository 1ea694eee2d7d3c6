# bench/lib.py: what the figures share: alternate runs of two or more sides, medians, the last JSON line.
"""A figure is bench/figures/NAME.py. It measures its sides in turn (a, b, a, b, ...), so that a busy
machine slows all of them alike, prints a small table and calls `report` at its end."""
import json
import os
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("PCMOE_BUILD", ROOT / "build" / "release"))
PYTHON = ROOT / ".venv" / "bin" / "python"
ROUNDS = max(1, int(os.environ.get("PCMOE_BENCH_ROUNDS", "5")))


def binary(name):
    """The path of a program that bench/run has built."""
    path = BUILD / "bin" / name
    if not path.exists():
        sys.exit(f"bench: {path} is missing; build it with: cmake --build {BUILD} --target {name}")
    return path


def run_json(command, **kwargs):
    """Runs a program and returns the object on its last line of output."""
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True,
                          **kwargs)
    if done.returncode != 0:
        sys.exit(f"bench: {command[0]} failed with exit code {done.returncode}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def alternate(sides, rounds=None):
    """Calls each side (name -> function returning a number) once a round, in turn; name -> numbers.

    Every other round goes backwards, so that no side always follows the same one.
    """
    results = {name: [] for name in sides}
    for number in range(ROUNDS if rounds is None else rounds):
        order = list(sides) if number % 2 == 0 else list(reversed(list(sides)))
        for name in order:
            results[name].append(sides[name]())
        latest = ", ".join(f"{name} {values[-1]:.4g}" for name, values in results.items())
        print(f"round {number + 1}: {latest}", file=sys.stderr, flush=True)
    return results


def medians(results):
    """name -> median of its numbers."""
    return {name: statistics.median(values) for name, values in results.items()}


def paired_ratio(ours, theirs):
    """The median over rounds of ours / theirs: both sides of a round saw the same machine."""
    return statistics.median(a / b for a, b in zip(ours, theirs))


def table(header, rows):
    """Prints rows of text, aligned: the first column to the left, the rest to the right."""
    text = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in text) for i in range(len(header))]
    for row in text:
        cells = [cell.ljust(w) if i == 0 else cell.rjust(w)
                 for i, (cell, w) in enumerate(zip(row, widths))]
        print("  ".join(cells))


def report(name, value, must, unit, detail, at_least=True):
    """Prints the figure's last line. `ok` is value >= must, or <= when at_least is false, and that every
    one of detail's `marks` holds, if it has some."""
    ok = (value >= must if at_least else value <= must) and all(detail.get("marks", {}).values())
    line = {"name": name, "value": round(value, 4), "must": must, "ok": bool(ok), "unit": unit,
            "detail": detail}
    print(json.dumps(line), flush=True)
    return 0 if ok else 1


def machine():
    """What a reader needs to know about where a figure came from; no names of machines."""
    model = "unknown"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return {"cpu": model, "cores": os.cpu_count(), "load_average": round(os.getloadavg()[0], 2)}
