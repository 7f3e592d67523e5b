/* kernels/gemm_bf16_avx512.c - the product of bfloat16 operands in vectors of sixteen f32 lanes. */
#include "kernels/gemm.h"

#ifdef TNN_GEMM_AVX512
#include "kernels/gemm_avx512.h"

#define vec_fma(a, b, c) ((v16f) _mm512_fmadd_ps((__m512) (a), (__m512) (b), (__m512) (c)))
#define BF16
#define PAIRS     0
#define FLUSHES /* during a chain, f32 operations flush denormals (CHAIN_BEGIN) */

#include "kernels/gemm_blocks.h"

const struct tnn_gemm_kernel tnn__gemm_bf16_avx512 = { .rows = MR, .columns = NR, .run = run };
#endif
