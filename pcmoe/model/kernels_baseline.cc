// pcmoe/model/kernels_baseline.cc: the loops of kernels_loops.inc for one CPU feature level
// (baseline).
#define PCMOE_TABLE BaselineTable
#define PCMOE_TABLE_NAME "baseline"
#include "pcmoe/model/kernels_loops.inc"
