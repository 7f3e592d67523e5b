/* kernels/gemm_neon.h - the vectors and tiles of matrix products in the width of NEON. */
#include <arm_neon.h>

#define vec       float32x4_t
#define LANES     4
#define vec_load  vld1q_f32
#define vec_store vst1q_f32
#define vec_set1  vdupq_n_f32
#define vec_fma(a, b, c) vfmaq_f32((c), (a), (b))
#define VECTORS   2
#define MR        8 /* 8 x 2 accumulators, two columns and a row take 19 of the 32 registers */
#define KC        384 /* a panel of B has 12 KiB */
#define ROWS(X)   X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
