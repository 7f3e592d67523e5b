/* kernels/gemm_v8.c - the matrix product in vectors of eight. It needs only the instructions of the build's profile, so
 * every CPU can run it. */
#include "kernels/vec8.h"

#define vec       v8f
#define LANES     V8_LANES
#define vec_load  v8_load
#define vec_store v8_store
#define vec_set1  v8_set1
#define vec_fma   v8_fma
#define VECTORS   2
#define MR        6 /* 6 x 2 accumulators, two columns and a row take 15 of the 16 registers of x86-64 */
#define KC        384 /* a panel of B has 24 KiB, half of a usual L1 cache */
#define ROWS(X)   X(0) X(1) X(2) X(3) X(4) X(5)

#include "kernels/gemm_blocks.h"

const struct tnn_gemm_kernel tnn__gemm_v8 = { .rows = MR, .columns = NR, .run = run, .run_few_rows = tnn__few_rows_v8, .pack = pack_all };
