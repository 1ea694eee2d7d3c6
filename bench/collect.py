# bench/collect.py: runs figures (all, or those named), keeps each JSON line in docs/results/NAME.json and
# writes docs/benchmarks.md from all that are there. With --write-only nothing is measured.
import argparse
import json
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results"
WHAT = {
    "hf_fp32": "central, fp32, against the better of transformers' eager and grouped_mm experts",
    "hf_best": "central, bf16 products, against the best of transformers' six variants",
    "four_rows": "four parties, `rows`, against central with as many threads in total",
    "sync_vs_round_robin": "synchronous against round_robin over a link of 20 ms and 100 Mbit/s",
    "hivemind_moe": "a remote MoE layer against hivemind's RemoteMixtureOfExperts",
    "hivemind_batched": "the same against hivemind's RemoteExpert on batches of 128 rows",
    "memory_states": "states per party at n = 4 against central, fraction saved",
    "wire_rows": "bytes on the sockets against the formula",
    "masking": "fixed point, stochastic rounding and two masks, against the two key streams alone",
    "four_weights": "four parties, `weights`, against central with as many threads in total",
    "wire_weights": "exchange `weights`: bytes on the sockets against the formula",
    "break_even": "step times of both exchanges over 50 ms and 200 Mbit/s: largest error of `pcmoe plan`",
    "memory_aggregated": "states per party at n = 4, all aggregated, against central, fraction saved",
    "export_loads": "four families: transformers loads every party's export, same logits; families that pass",
    "eval_speed": "an evaluation's tokens a second against the forward of a training step",
    "audit_rows": "audit of a `rows` run: token rows decoded (top-1), the attacks work",
    "audit_weights": "audit of a `weights` run: largest excess of a token attack over unigram",
    "audit_time": "seconds of the audit of the small model",
    "report": "the page of a four-party comparison: small, asks for nothing, fits a phone",
    "plan_error": "largest relative error of `pcmoe plan`'s peak over four configurations",
}
# Their data is not part of the project: they are measured when it is named, with --data DIR.
NEEDS_DATA = {
    "seven": "seven benchmarks, dev, three seeds: central minus everything aggregated (`min_rows = 0`)",
    "seven_private": "private backbone with its best options: of the way from alone to central",
    "seven_convergence": "steps to 95 % of central's final accuracy, aggregated (`min_rows = 0`) against central",
    "seven_level": "central against tf-idf with logistic regression",
}
WHAT.update(NEEDS_DATA)
AT_MOST = {"seven", "seven_convergence", "wire_rows", "wire_weights", "break_even", "plan_error", "audit_weights", "audit_time"}


def measure(name, data, minutes):
    """True when the figure gave a result (whether it reached its mark or not)."""
    if name in NEEDS_DATA and data is None:
        print(f"== {name}: left out; name its data with --data DIR", flush=True)
        return True
    print(f"== {name}", flush=True)
    more = ["--data", data] if name in NEEDS_DATA else []
    if more and minutes is not None:
        more += ["--minutes", str(minutes)]
    done = subprocess.run([str(ROOT / "bench" / "run"), name, *more], stdout=subprocess.PIPE, text=True)
    print(done.stdout, flush=True)
    try:
        result = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        print(f"bench: {name} gave no result (exit code {done.returncode})", file=sys.stderr)
        return False
    RESULTS.mkdir(parents=True, exist_ok=True)
    runs = ROOT / "build" / name / "runs.jsonl"
    if runs.is_file():
        shutil.copy(runs, RESULTS / f"{name}_runs.jsonl")
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    return True


def write_page():
    results = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    order = [name for name in WHAT if name in results] + [n for n in results if n not in WHAT]
    lines = ["# Benchmarks", "", "Written by `make bench` from docs/results; `bench/run NAME` measures one. "
             "The sides of a figure", "run in turn on the same machine; values are ratios of medians.", "",
             "| figure | what | value | must be | reached |", "| --- | --- | --- | --- | --- |"]
    for name in order:
        r = results[name]
        sign = "<=" if name in AT_MOST else ">="
        lines.append(f"| {name} | {WHAT.get(name, '')} | {r['value']:g} {r['unit']} | "
                     f"{sign} {r['must']:g} | {'yes' if r['ok'] else 'no'} |")
    for name in order:
        lines += ["", f"## {name}", "", "```json", json.dumps(results[name]["detail"], indent=1), "```"]
    (ROOT / "docs" / "benchmarks.md").write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--write-only", action="store_true")
    parser.add_argument("--data", help="for the figures that need benchmarks and domains")
    parser.add_argument("--minutes", type=float, help="those start no run after so many; 0: of what has been run")
    arguments = parser.parse_args()
    names = arguments.names
    if not arguments.write_only:
        names = names or sorted(p.stem for p in (ROOT / "bench" / "figures").glob("*.py"))
        complete = all([measure(name, arguments.data, arguments.minutes) for name in names])
    else:
        complete = True
    write_page()
    sys.exit(0 if complete else 1)


if __name__ == "__main__":
    main()
