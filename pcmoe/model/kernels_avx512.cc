// pcmoe/model/kernels_avx512.cc: the loops of kernels_loops.inc for one CPU feature level (avx512).
#define PCMOE_TABLE Avx512Table
#define PCMOE_TABLE_NAME "avx512"
#include "pcmoe/model/kernels_loops.inc"
