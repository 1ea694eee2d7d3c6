# bench/figures/masking.py: fixed point, stochastic rounding and two masks against the cipher alone.
# needs: masking
"""One thread, n = 4: a contributor adds two masks. Both sides say gradient bytes (fp32) a second; the
cipher's side only produces the two AES-128-CTR streams that the masks are made of."""
import sys

import lib

NAME, MUST = "masking", 0.5


def main():
    program = lib.binary("masking")
    loops = set()

    def side(which):
        result = lib.run_json([program, which])
        loops.add(result["loops"])
        return result["gradient_gb_s"]

    sides = lib.alternate({"masked": lambda: side("masked"), "cipher": lambda: side("cipher")})
    ratio = lib.paired_ratio(sides["masked"], sides["cipher"])
    speeds = lib.medians(sides)
    lib.table(["side", "gradient GB/s and core"],
              [[name, f"{speed:.2f}"] for name, speed in speeds.items()])
    detail = {"gradient_gb_s": {name: round(speed, 3) for name, speed in speeds.items()},
              "rounds": {name: [round(v, 3) for v in values] for name, values in sides.items()},
              "loops": sorted(loops), "parties": 4, "masks": 2, "machine": lib.machine()}
    return lib.report(NAME, ratio, MUST, "x the cipher alone", detail)


if __name__ == "__main__":
    sys.exit(main())
