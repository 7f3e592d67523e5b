/* kernels/gemm_avx512.c - the matrix product in vectors of sixteen. Only the files *_avx512.c and
 * gemm_bf16_pairs.c are compiled for AVX-512.
 *
 * This code runs only if kernels/gemm.c found that the CPU and the system support AVX-512. A lane is a column of the
 * result, and no operation mixes lanes, so the bits are those of kernels/gemm_v8.c. */
#include "kernels/gemm.h"

#ifdef TNN_GEMM_AVX512
#include "kernels/gemm_avx512.h"

#define vec_fma(a, b, c) ((v16f) _mm512_fmadd_ps((__m512) (a), (__m512) (b), (__m512) (c)))

#include "kernels/gemm_blocks.h"

const struct tnn_gemm_kernel tnn__gemm_avx512 = { .rows = MR, .columns = NR, .run = run, .run_few_rows = tnn__few_rows_avx512, .pack = pack_all };
#endif
