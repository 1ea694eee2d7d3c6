// pcmoe/border/mask_loops_baseline.cc: the loops of mask_loops.inc for one CPU feature level
// (baseline).
#define PCMOE_LOOPS BaselineMaskLoops
#define PCMOE_LOOPS_NAME "baseline"
#include "pcmoe/border/mask_loops.inc"
