/* kernels/gemm_neon.c - the matrix product in vectors of four, the width of NEON's registers, which every aarch64 CPU
 * has.
 *
 * On aarch64, gcc keeps vectors of eight in memory instead of pairs of registers: with gcc 12, the loop of the largest
 * tile of kernels/gemm_v8.c has 190 instructions, of which 24 multiply and 124 load or store. Here the loop has 29, of
 * which 16 multiply and 9 load. A lane is a column of the result, and no operation mixes lanes, so the bits are those
 * of kernels/gemm_v8.c. */
#include "kernels/gemm.h"

#ifdef TNN_GEMM_NEON
#include "kernels/gemm_neon.h"
#include "kernels/gemm_blocks.h"

const struct tnn_gemm_kernel tnn__gemm_neon = { .rows = MR, .columns = NR, .run = run, .run_few_rows = tnn__few_rows_v8, .pack = pack_all };
#endif
