/* kernels/gemm_bf16_pairs.c - the product of bfloat16 operands with the instruction vdpbf16ps, which computes two fused
 * multiply-adds in each of sixteen lanes. Its bits define those of the other kernels (kernels/bf16.h). */
#include "kernels/gemm.h"

#ifdef TNN_GEMM_AVX512
#include "kernels/gemm_avx512.h"

#define vec_fma(a, b, c) ((v16f) _mm512_dpbf16_ps((__m512) (c), (__m512bh) (a), (__m512bh) (b)))
#define BF16
#define PAIRS     1

#include "kernels/gemm_blocks.h"

const struct tnn_gemm_kernel tnn__gemm_bf16_pairs = { .rows = MR, .columns = NR, .run = run };
#endif
