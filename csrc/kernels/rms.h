/* kernels/rms.h - the root mean square of a row. */
#ifndef TNN_RMS_H
#define TNN_RMS_H

#include <math.h>

#include "kernels/each_vector.h"

/* Returns 1 / sqrt(mean(x^2) + eps) of d values. */
static inline float tnn__reciprocal_rms(const float * x, int64_t d, float eps) {
    v8f sum = v8_set1(0.0f);
    EACH_VECTOR(d, { const v8f a = LOAD(x); sum = v8_fma(a, a, sum); })
    return 1.0f / sqrtf(v8_sum(sum) / (float) d + eps);
}

#endif
