/* tinynn_gemm.h - the matrix product of the fused layout.
 *
 * Every element of C is one chain of fused multiply-adds along k, in rising order: c = fma(a[k], b[k], c), from 0 or from
 * what C holds. So its bits depend on nothing but its row of A and its column of B: not on the number of threads, the
 * blocking, the other rows of the batch or which operand is packed.
 */
#ifndef TINYNN_GEMM_H
#define TINYNN_GEMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* C (m, n) = A (m, k) B (k, n). Element (i, j) of X lies at x[i*x_row + j*x_col]; one of the two strides is 1. */
struct tnn_gemm {
    int64_t       m, n, k;
    const float * a;
    int64_t       a_row, a_col;
    const float * b;
    int64_t       b_row, b_col;
    float       * c; /* its rows are contiguous */
    int64_t       c_row;
    bool          accumulate; /* the chain starts from what C holds */
    const float * bias;       /* (n), added when the chain is done, or NULL */
    const float * add;        /* (m, n), row stride of C, added after the bias, or NULL */
};

/* Bytes of scratch that tnn__gemm needs, 64-byte aligned. */
size_t tnn__gemm_scratch(void);

/* By one thread. scratch belongs to it alone. */
void tnn__gemm(const struct tnn_gemm * g, void * scratch);

/* Thread ith's share of a product that nth threads compute together; the shares are disjoint parts of C. */
void tnn__gemm_share(const struct tnn_gemm * g, int ith, int nth, void * scratch);

/* The ith of nth nearly equal parts of 0..n, its ends multiples of unit. */
static inline void tnn__part(int64_t n, int64_t unit, int ith, int nth, int64_t * begin, int64_t * end) {
    const int64_t units = (n + unit - 1) / unit;
    *begin = units * ith / nth * unit;
    *end   = units * (ith + 1) / nth * unit;
    *begin = *begin < n ? *begin : n;
    *end   = *end < n ? *end : n;
}

#endif
