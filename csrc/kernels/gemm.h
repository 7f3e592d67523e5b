/* kernels/gemm.h - the matrix product of the fused layout.
 *
 * Every element of C is one chain of fused multiply-adds along k, in rising order: c = fma(a[k], b[k], c), starting from 0 or from the
 * element of C. So the bits of an element depend only on its row of A and its column of B. They do not depend on the
 * number of threads, the blocking, the other rows of the batch, or which operand is packed.
 */
#ifndef TNN_GEMM_H
#define TNN_GEMM_H

#include "kernels/stored.h"
#include "machine/machine.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* C (m, n) = A (m, k) B (k, n). Element (i, j) of X is x[i*x_row + j*x_col]; one of the two strides is 1. */
struct tnn_gemm {
    int64_t       m, n, k;
    const float * a;
    int64_t       a_row, a_col;
    const float * b;
    int64_t       b_row, b_col;
    /* If stored.data is not NULL, B is the matrix `stored`. Then b is NULL, and b_row and b_col are the strides of the
     * f32 B. */
    struct tnn_stored stored;
    float       * c; /* the rows of C are contiguous */
    int64_t       c_row;
    bool          accumulate; /* the sums start from the elements of C */
    const float * bias;       /* (n), added after the last product, or NULL */
    const float * add;        /* (m, n) with the row stride of C, added after the bias, or NULL */
};

/* A matrix product kernel for one vector width, compiled from kernels/gemm_blocks.h. All kernels compute the same
 * bits. */
struct tnn_gemm_kernel {
    const char * name;
    int64_t      rows, columns; /* the size of a tile */
    void (*run)(const struct tnn_gemm * g, void * scratch);
};

extern const struct tnn_gemm_kernel tnn__gemm_v8;
#if defined(__x86_64__)
#define TNN_GEMM_AVX512
extern const struct tnn_gemm_kernel tnn__gemm_avx512;
#elif defined(__aarch64__)
#define TNN_GEMM_NEON
extern const struct tnn_gemm_kernel tnn__gemm_neon;
#endif

/* Limits of all kernels: KC elements along k, NC columns of B and MC rows of A are packed at once; a tile has at most
 * TILE elements. */
#define TNN_GEMM_KC   384
#define TNN_GEMM_NC   512 /* a block of B: 768 KiB at most, in L2 or L3 */
#define TNN_GEMM_MC   96  /* rows of A: 150 KiB, in L2 */
/* Unused elements after each copied row, so that rows do not evict each other from the cache. */
#define TNN_GEMM_PAD  16
#define TNN_GEMM_TILE (12 * 32)
/* Number of elements in the buffer for converted elements. It must have room for a panel, and for a row of NC elements
 * with a whole block before and after it, because tnn__stored_row converts whole blocks. */
#define TNN_GEMM_STAGE (32 * TNN_GEMM_KC)

/* Bytes of scratch that tnn__gemm needs, 64-byte aligned. */
size_t tnn__gemm_scratch(void);

/* Computes the product in one thread. scratch belongs to this thread. */
void tnn__gemm(const struct tnn_gemm * g, void * scratch);

/* Computes the share of thread ith in a product that nth threads compute together. The shares are separate parts of
 * C. */
void tnn__gemm_share(const struct tnn_gemm * g, int ith, int nth, void * scratch);

#endif
