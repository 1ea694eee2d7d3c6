# bench/figures/hf_best.py: central pcmoe, bf16 products over fp32 weights, against the best of
# transformers' six variants.
# needs: pcmoe_step_bench
import itertools
import sys

import hf

if __name__ == "__main__":
    sys.exit(hf.measure("hf_best", "bf16",
                        list(itertools.product(["fp32", "bf16", "autocast"],
                                               ["eager", "grouped_mm"])), 2.0))
