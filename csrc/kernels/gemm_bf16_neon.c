/* kernels/gemm_bf16_neon.c - the product of bfloat16 operands in vectors of four. */
#include "kernels/gemm.h"

#ifdef TNN_GEMM_NEON
#include "kernels/gemm_neon.h"

#define BF16
#define PAIRS     0
#define FLUSHES /* during a chain, f32 operations flush denormals (CHAIN_BEGIN) */

#include "kernels/gemm_blocks.h"

const struct tnn_gemm_kernel tnn__gemm_bf16_neon = { .rows = MR, .columns = NR, .run = run };
#endif
