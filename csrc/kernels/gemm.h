/* kernels/gemm.h - the matrix product of the fused layout.
 *
 * Every element of C is one chain of fused multiply-adds along k, in rising order: c = fma(a[k], b[k], c), starting from 0 or from the
 * element of C. So the bits of an element depend only on its row of A and its column of B. They do not depend on the
 * number of threads, the blocking, the other rows of the batch, or which operand is packed. Only the gradient of a
 * weight is divided into several chains along k, one for each window.
 *
 * A product of bfloat16 operands (bf16) rounds each element of A and B to bfloat16, and kernels/bf16.h defines the
 * bits of its chains. Its result, bias, add and the sums of windows are f32, as in the other products.
 */
#ifndef TNN_GEMM_H
#define TNN_GEMM_H

#include "kernels/stored.h"
#include "kernels/window_sums.h"
#include "machine/machine.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tnn_gemm_kernel;

/* A whole B that tnn__gemm_pack has packed for the products of one kernel, so that several products can use it. */
struct tnn_panels {
    const float * data; /* NULL: there are no panels */
    const struct tnn_gemm_kernel * kernel;
};

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
    struct tnn_panels panels; /* if panels.data is not NULL, B is these panels, and b, b_row and b_col are not used */
    float       * c; /* the rows of C are contiguous */
    int64_t       c_row;
    bool          accumulate; /* the sums start from the elements of C */
    bool          bf16;       /* the elements of A and B are rounded to bfloat16 */
    const float * bias;       /* (n), added after the last product, or NULL */
    const float * add;        /* (m, n) with the row stride of C, added after the bias, or NULL */
    /* If windows is not NULL, k consists of windows->n windows of equal size. Each window is one chain, and the
     * chains of the windows are added as a tree (kernels/window_sums.h). accumulate then means that the sum of the
     * step is added to C. A stored node has the layout of C, and element 0 of C is element stored_at of the node.
     * bias and add are NULL. */
    const struct tnn_windows * windows;
    size_t        stored_at;
    /* The rows of the batch along k. If they are not all rows, C holds the chain of a window whose other rows are
     * added later. A node that waits for later rows has the layout of C, and element 0 of C is element between_at of
     * the node. With bf16, the rows begin at an even row of a window. */
    struct tnn_rows_of_batch rows;
    size_t        between_at;
};

/* A matrix product kernel for one vector width, compiled from kernels/gemm_blocks.h. All kernels compute the same
 * bits. */
struct tnn_gemm_kernel {
    int64_t      rows, columns; /* the size of a tile */
    void (*run)(const struct tnn_gemm * g, void * scratch);
    /* Computes a product of at most TNN_FEW_ROWS rows, with a B whose columns are contiguous along k. NULL: this
     * kernel has no such function. */
    void (*run_few_rows)(const struct tnn_gemm * g, void * scratch);
    void (*pack)(const struct tnn_gemm * g, float * panels); /* packs B; NULL if the operands are bfloat16 */
};

/* The functions run_few_rows, compiled from kernels/few_rows.h. */
void tnn__few_rows_v8(const struct tnn_gemm * g, void * scratch);
void tnn__few_rows_avx512(const struct tnn_gemm * g, void * scratch);

extern const struct tnn_gemm_kernel tnn__gemm_v8, tnn__gemm_bf16_v8;
#if defined(__x86_64__)
#define TNN_GEMM_AVX512
extern const struct tnn_gemm_kernel tnn__gemm_avx512, tnn__gemm_bf16_avx512, tnn__gemm_bf16_pairs;
#elif defined(__aarch64__)
#define TNN_GEMM_NEON
extern const struct tnn_gemm_kernel tnn__gemm_neon, tnn__gemm_bf16_neon;
#endif

#define TNN_FEW_ROWS 16 /* with up to this number of rows, B is not packed; with more rows, packing B into panels is faster */

/* Limits of all kernels: KC elements along k, NC columns of B and MC rows of A are packed at once; a tile has at most
 * ROWS x COLUMNS elements. */
#define TNN_GEMM_KC   384
#define TNN_GEMM_NC   512 /* a block of B: 768 KiB at most, in L2 or L3 */
#define TNN_GEMM_MC   96  /* rows of A: 150 KiB, in L2 */
/* Unused elements after each copied row, so that rows do not evict each other from the cache. */
#define TNN_GEMM_PAD  16
#define TNN_GEMM_ROWS    12
#define TNN_GEMM_COLUMNS 48
#define TNN_GEMM_TILE    (TNN_GEMM_ROWS * TNN_GEMM_COLUMNS)
/* Number of elements in the buffer for converted elements. The buffer must be large enough for a panel, and for a
 * row of NC elements with a whole block before and after the row, because tnn__stored_row converts whole blocks. */
#define TNN_GEMM_STAGE (TNN_GEMM_COLUMNS * TNN_GEMM_KC)

/* Largest number of elements in the buffer for nodes of a tree over windows. */
#define TNN_GEMM_NODES (INT64_C(1) << 21)

/* Returns the bytes of scratch memory that tnn__gemm needs. The memory must be aligned to 64 bytes. */
static inline size_t tnn__gemm_scratch(void) {
    return sizeof(float) * (TNN_GEMM_KC * TNN_GEMM_NC + TNN_GEMM_MC * (TNN_GEMM_KC + TNN_GEMM_PAD) + TNN_GEMM_TILE
                            + TNN_GEMM_STAGE);
}
/* Returns the bytes of scratch memory that tnn__gemm needs for an m x n product with this number of windows. */
size_t tnn__gemm_windows_scratch(int64_t m, int64_t n, int64_t windows);

/* Packs the B of a product of f32 operands with at most TNN_GEMM_KC elements along k. data: a place for
 * tnn__gemm_panels_size(n, k) elements. */
struct tnn_panels tnn__gemm_pack(const struct tnn_gemm * g, float * data);

static inline int64_t tnn__gemm_panels_size(int64_t n, int64_t k) {
    return (n + TNN_GEMM_COLUMNS - 1) / TNN_GEMM_COLUMNS * TNN_GEMM_COLUMNS * k;
}

/* Returns the panels of the columns from `column` on, a multiple of TNN_GEMM_COLUMNS. k: elements along k. */
static inline struct tnn_panels tnn__panels_from(struct tnn_panels p, int64_t column, int64_t k) {
    return (struct tnn_panels) { .data = p.data != NULL ? p.data + column * k : NULL, .kernel = p.kernel };
}

/* Computes the product in one thread. scratch belongs to this thread. */
void tnn__gemm(const struct tnn_gemm * g, void * scratch);

/* Computes the share of thread ith in a product that nth threads compute together. The shares are separate parts of
 * C. */
void tnn__gemm_share(const struct tnn_gemm * g, int ith, int nth, void * scratch);

#endif
