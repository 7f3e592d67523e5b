/* kernels/gemm_avx512.h - the vectors and tiles of matrix products that are compiled for AVX-512. */
#include "kernels/vec16.h"

#define VECTORS   3
#define MR        8 /* 8 x 3 accumulators, three columns and a row take 28 of the 32 registers */
#define KC        384 /* a panel of B has 72 KiB; its next rows arrive from L2 in time */
#define ROWS(X)   X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
