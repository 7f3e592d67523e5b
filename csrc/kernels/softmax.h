/* kernels/softmax.h - the loops of softmax over a row, which compute its maximum and the sum of its exponentials. */
#ifndef TNN_SOFTMAX_H
#define TNN_SOFTMAX_H

#include "kernels/each_vector.h"

#include <stddef.h>

static inline float tnn__row_max(const float * x, int64_t size) {
    v8f max = v8_set1(-INFINITY);
    EACH_VECTOR(size, { max = v8_max(LOAD_OR(x, -INFINITY), max); })
    return v8_max_lane(max);
}

/* Returns the sum of exp(x - max), in eight lanes. Writes the exponentials to out, unless it is NULL; out may be x. */
static inline float tnn__exp_sum(const float * x, int64_t size, float max, float * out) {
    const v8f shift = v8_set1(max);
    v8f       sum   = v8_set1(0.0f);
    EACH_VECTOR(size, {
        const v8f e = v8_exp(LOAD_OR(x, -INFINITY) - shift);
        if (out != NULL) {
            STORE(out, e);
        }
        sum += e;
    })
    return v8_sum(sum);
}

#endif
