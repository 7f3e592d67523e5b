/* kernels/gemm_avx512.h - the vectors and tiles of matrix products that are compiled for AVX-512. */
#include "kernels/vec16.h"

#define MR        12 /* 12 x 2 accumulators and two columns take 26 of the 32 registers */
#define KC        384 /* a panel of B has 48 KiB; its next rows arrive from L2 in time */
#define ROWS(X)   X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
