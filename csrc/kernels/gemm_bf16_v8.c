/* kernels/gemm_bf16_v8.c - the product of bfloat16 operands in vectors of eight. It needs only the instructions of the
 * build's profile, so every CPU can run it. */
#include "kernels/bf16.h"

#define vec       v8f
#define LANES     V8_LANES
#define vec_load  v8_load
#define vec_store v8_store
#define vec_set1  v8_set1
#define VECTORS   2
#define MR        6
#define KC        384
#define ROWS(X)   X(0) X(1) X(2) X(3) X(4) X(5)
#define BF16
#define PAIRS     0

#if defined(__AVX2__) && defined(__FMA__)
#define FLUSHES /* during a chain, f32 operations flush denormals (CHAIN_BEGIN) */
#define vec_fma   v8_fma
#else
static inline v8f vec_fma(v8f a, v8f b, v8f c) {
    for (int i = 0; i < V8_LANES; i++) {
        c[i] = bf16_fma(a[i], b[i], c[i]);
    }
    return c;
}
#endif

#include "kernels/gemm_blocks.h"

const struct tnn_gemm_kernel tnn__gemm_bf16_v8 = { .rows = MR, .columns = NR, .run = run };
