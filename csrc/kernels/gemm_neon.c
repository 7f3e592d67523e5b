/* kernels/gemm_neon.c - the matrix product in vectors of four, the width of NEON's registers, which every aarch64 CPU
 * has.
 *
 * On aarch64, gcc keeps vectors of eight in memory instead of pairs of registers: with gcc 12, the loop of the largest
 * tile of kernels/gemm_v8.c has 190 instructions, of which 24 multiply and 124 load or store. Here the loop has 29, of
 * which 16 multiply and 9 load. A lane is a column of the result, and no operation mixes lanes, so the bits are those
 * of kernels/gemm_v8.c. */
#include "kernels/gemm.h"

#ifdef TNN_GEMM_NEON
#include <arm_neon.h>

#define vec       float32x4_t
#define LANES     4
#define vec_load  vld1q_f32
#define vec_store vst1q_f32
#define vec_set1  vdupq_n_f32
#define vec_fma(a, b, c) vfmaq_f32((c), (a), (b))
#define MR        8 /* 8 x 2 accumulators, two columns and a row take 19 of the 32 registers */
#define KC        384 /* a panel of B has 12 KiB */
#define ROWS(X)   X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)

#include "kernels/gemm_blocks.h"

const struct tnn_gemm_kernel tnn__gemm_neon = { .rows = MR, .columns = NR, .run = run, .run_few_rows = tnn__few_rows_v8 };
#endif
