# bench/figures/eval_speed.py: an evaluation's pass against the forward of a training step over the same rows.
# needs: eval_speed
"""One thread, fp32, classification rows: 8,192 tokens in four micro-batches, loss on one token a row. The training
side counts up to the end of the head, whose gradient is in it, too, for so few tokens."""
import sys

import lib

NAME, MUST = "eval_speed", 0.9


def main():
    program = lib.binary("eval_speed")
    sides = lib.alternate({side: lambda side=side: lib.run_json([program, side])["tokens_s"]
                           for side in ("evaluate", "train")})
    ratio = lib.paired_ratio(sides["evaluate"], sides["train"])
    lib.table(["side", "tokens/s"], [[name, f"{speed:.0f}"] for name, speed in lib.medians(sides).items()])
    return lib.report(NAME, ratio, MUST, "x a training forward", {"rounds": sides, "machine": lib.machine()})


if __name__ == "__main__":
    sys.exit(main())
