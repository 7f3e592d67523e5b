/* kernels/bf16.h - bfloat16 operands of products.
 *
 * A product of two bfloat16 operands has the same bits as the instruction vdpbf16ps: its chain along k takes two products at
 * a time, first the product with the odd index, then the product with the even index. Each product is a fused
 * multiply-add in f32 that rounds to nearest even and replaces denormal operands and results by zeros of the same sign.
 * A result is denormal if it is below FLT_MIN after rounding to 24 bits. A chain of odd length ends with a product of
 * two zeros at the odd index.
 */
#ifndef TNN_BF16_H
#define TNN_BF16_H

#include "kernels/vec8.h"

#include <float.h>

typedef uint32_t v8u __attribute__((vector_size(32)));

#define BF16_MASK  0xffff0000u /* the bits of a bfloat16 in an f32 */
#define QUIET_NAN  0x00400000u

/* Rounds to bfloat16, to nearest even. The result is an f32. A NaN stays a NaN. */
static inline float bf16_round(float x) {
    uint32_t u;
    memcpy(&u, &x, sizeof(u));
    u = x == x ? u + 0x7fffu + (u >> 16 & 1u) : u | QUIET_NAN;
    u &= BF16_MASK;
    memcpy(&x, &u, sizeof(x));
    return x;
}

static inline v8u v8_bf16_round(v8f x) {
    const v8u u = (v8u) x, nan = (v8u) (x != x);
    return ((u + ((0x7fffu + (u >> 16 & 1u)) & ~nan)) | (nan & QUIET_NAN)) & BF16_MASK;
}

static inline float flush_denormal(float x) {
    return fabsf(x) < FLT_MIN ? copysignf(0.0f, x) : x;
}

/* Returns a * b + c, where a and b are bfloat16 values, as vdpbf16ps computes one product. The processor must be in the
 * default mode, in which it does not flush denormals. */
static inline float bf16_fma(float a, float b, float c) {
    a = flush_denormal(a);
    b = flush_denormal(b);
    c = flush_denormal(c);
    const float r = fmaf(a, b, c);
    if (!(fabsf(r) <= FLT_MIN)) {
        return r; /* r is not denormal; this branch also returns a NaN */
    }
    if (fabsf(r) == FLT_MIN) {
        /* The exact sum may be below FLT_MIN. If so, fmaf rounded the sum to the precision of a denormal. With 24 bits, only
         * sums from FLT_MIN - 2^-151 on are rounded to FLT_MIN. sum + error is the exact sum of product and c. */
        const double sign  = r > 0.0f ? 1.0 : -1.0;
        const double least = 0x1p-126 - 0x1p-151;
        const double product = sign * (double) a * (double) b, addend = sign * (double) c;
        const double sum = product + addend, part = sum - product;
        const double error = (product - (sum - part)) + (addend - part);
        if (sum > least || (sum == least && error >= 0.0)) {
            return r;
        }
    }
    return copysignf(0.0f, r);
}

#endif
