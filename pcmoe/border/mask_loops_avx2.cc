// pcmoe/border/mask_loops_avx2.cc: the loops of mask_loops.inc for one CPU feature level (avx2).
#define PCMOE_LOOPS Avx2MaskLoops
#define PCMOE_LOOPS_NAME "avx2"
#include "pcmoe/border/mask_loops.inc"
