# bench/hf.py: both sides of hf_fp32 and hf_best: pcmoe_step_bench and the worker hf_step.py.
"""Tokens per second of whole training steps on the same random-token batches, same model shape."""
import atexit
import json
import os
import statistics
import subprocess

import lib

CONFIG = lib.ROOT / "bench" / "models" / "hf_olmoe.json"
SEQUENCES, LENGTH, THREADS = 8, 256, 2
STEPS = int(os.environ.get("PCMOE_BENCH_STEPS", "6"))
WARMUP = 1


class Worker:
    """A Python process that keeps transformers' models between rounds."""

    def __init__(self):
        self.process = subprocess.Popen(
            [str(lib.PYTHON), str(lib.ROOT / "bench" / "hf_step.py"), str(CONFIG), str(THREADS),
             str(SEQUENCES), str(LENGTH)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        atexit.register(self.process.kill)
        self.torch = self._answer()["torch"]

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("bench: hf_step.py has ended; its message is above")
        return json.loads(line)

    def tokens_per_s(self, variant, experts):
        """By the median of STEPS steps."""
        self.process.stdin.write(f"{variant} {experts} {STEPS} {WARMUP}\n")
        self.process.stdin.flush()
        return SEQUENCES * LENGTH / statistics.median(self._answer()["seconds"])


def pcmoe_tokens_per_s(precision, micro_batches):
    """By the median of STEPS steps."""
    return lib.run_json([lib.binary("pcmoe_step_bench"), "--config", CONFIG, "--precision", precision,
                         "--sequences", SEQUENCES, "--length", LENGTH, "--micro-batches",
                         micro_batches, "--threads", THREADS, "--steps", STEPS, "--warmup",
                         WARMUP])["tokens_per_s"]


def measure(name, precision, variants, must, micro_batches=1):
    """pcmoe against the best of `variants` ((variant, experts) pairs); the figure's exit code."""
    worker = Worker()
    ours = f"pcmoe {precision}"
    sides = {ours: lambda: pcmoe_tokens_per_s(precision, micro_batches)}
    for variant, experts in variants:
        sides[f"transformers {variant} {experts}"] = (
            lambda v=variant, e=experts: worker.tokens_per_s(v, e))
    results = lib.alternate(sides)
    middle = lib.medians(results)
    best = max((side for side in sides if side != ours), key=middle.get)
    lib.table(["side", "tokens/s", "least", "most"],
              [[side, f"{middle[side]:.0f}", f"{min(values):.0f}", f"{max(values):.0f}"]
               for side, values in results.items()])
    detail = {"tokens_per_s": {side: round(value, 1) for side, value in middle.items()},
              "best_of_the_others": best, "rounds": len(results[ours]), "steps_a_round": STEPS,
              "threads": THREADS, "micro_batches": micro_batches, "torch": worker.torch,
              "median_of_paired_ratios": round(lib.paired_ratio(results[ours], results[best]), 3),
              **lib.machine()}
    return lib.report(name, middle[ours] / middle[best], must, "x tokens/s", detail)
