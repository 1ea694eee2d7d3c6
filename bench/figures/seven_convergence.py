# bench/figures/seven_convergence.py: steps to 95 % of central's final accuracy.
# needs: pcmoe
"""bench/seven_figures.py says how; this picks the figure on the last line."""
import sys

import seven_figures

if __name__ == "__main__":
    sys.exit(seven_figures.main("seven_convergence"))
