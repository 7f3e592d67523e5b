/* kernels/rms.h - RMSNorm of one row, forward and backward. The kernels of whole rows and of heads use it. */
#ifndef TNN_RMS_H
#define TNN_RMS_H

#include <math.h>
#include <stddef.h>

#include "kernels/each_vector.h"

/* Returns 1 / sqrt(mean(x^2) + eps) of d values. */
static inline float tnn__reciprocal_rms(const float * x, int64_t d, float eps) {
    v8f sum = v8_set1(0.0f);
    EACH_VECTOR(d, { const v8f a = LOAD(x); sum = v8_fma(a, a, sum); })
    return 1.0f / sqrtf(v8_sum(sum) / (float) d + eps);
}

/* Computes y = x / rms(x) * gamma for d values. */
static inline void tnn__rms_norm_row(const float * x, const float * gamma, float * y, int64_t d, float eps) {
    const v8f r = v8_set1(tnn__reciprocal_rms(x, d, eps));
    EACH_VECTOR(d, { STORE(y, LOAD(x) * r * LOAD(gamma)); })
}

/* Computes dx = r (g - x r^2 mean(g x)) (+ add) for d values, with g = dy * gamma and r = 1 / rms(x). add may be NULL.
 * dx may be the same memory as dy. */
static inline void tnn__rms_norm_row_back_x(const float * dy, const float * x, const float * gamma, const float * add,
                                            float * dx, int64_t d, float eps) {
    const float r = tnn__reciprocal_rms(x, d, eps);
    v8f dot = v8_set1(0.0f);
    EACH_VECTOR(d, { dot = v8_fma(LOAD(dy) * LOAD(gamma), LOAD(x), dot); })
    const v8f scale = v8_set1(r), slope = v8_set1(-(r * r) * (v8_sum(dot) / (float) d));
    EACH_VECTOR(d, {
        const v8f g = v8_fma(LOAD(x), slope, LOAD(dy) * LOAD(gamma)) * scale;
        STORE(dx, add != NULL ? g + LOAD(add) : g);
    })
}

/* Adds dy * x / rms(x) to the columns begin..end-1 of dgamma. x and dy are rows of d values; dgamma points to column
 * begin. */
static inline void tnn__rms_norm_row_back_gamma(const float * dy, const float * x, float * dgamma, int64_t begin,
                                                int64_t end, int64_t d, float eps) {
    const v8f     r  = v8_set1(tnn__reciprocal_rms(x, d, eps));
    const float * xr = x + begin;
    const float * g  = dy + begin;
    EACH_VECTOR(end - begin, { STORE(dgamma, v8_fma(LOAD(g) * r, LOAD(xr), LOAD(dgamma))); })
}

#endif
