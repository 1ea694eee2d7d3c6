# bench/figures/seven.py: seven benchmarks: the federation next to one central model and each party alone.
# needs: pcmoe
"""bench/seven_figures.py says how; this picks the figure on the last line."""
import sys

import seven_figures

if __name__ == "__main__":
    sys.exit(seven_figures.main("seven"))
