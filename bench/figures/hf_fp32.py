# bench/figures/hf_fp32.py: central pcmoe in fp32 against the better of transformers' expert loops.
# needs: pcmoe_step_bench
import sys

import hf

if __name__ == "__main__":
    sys.exit(hf.measure("hf_fp32", "fp32", [("fp32", "eager"), ("fp32", "grouped_mm")], 1.3))
