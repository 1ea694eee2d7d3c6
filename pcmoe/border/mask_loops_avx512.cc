// pcmoe/border/mask_loops_avx512.cc: the loops of mask_loops.inc for one CPU feature level
// (avx512).
#define PCMOE_LOOPS Avx512MaskLoops
#define PCMOE_LOOPS_NAME "avx512"
#include "pcmoe/border/mask_loops.inc"
