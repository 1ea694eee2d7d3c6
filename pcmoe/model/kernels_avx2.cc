// pcmoe/model/kernels_avx2.cc: the loops of kernels_loops.inc for one CPU feature level (avx2).
#define PCMOE_TABLE Avx2Table
#define PCMOE_TABLE_NAME "avx2"
#include "pcmoe/model/kernels_loops.inc"
