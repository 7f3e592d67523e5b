/* kernels/each_vector.h - a loop over a row of any size, in vectors of eight. */
#ifndef TNN_EACH_VECTOR_H
#define TNN_EACH_VECTOR_H

#include "kernels/vec8.h"

#include <stdbool.h>

/* Runs the body with i = 0, 8, ... for each whole vector of the size elements, then once for the n elements that are
 * left. In the body LOAD,
 * LOAD_OR (with a value for the lanes beyond the end) and STORE access the vector at i. */
#define EACH_VECTOR(size, ...)                                       \
    {                                                                \
        int64_t i = 0;                                               \
        for (; i + V8_LANES <= (size); i += V8_LANES) {              \
            const bool    whole = true;                              \
            const int64_t n     = V8_LANES;                          \
            __VA_ARGS__                                              \
        }                                                            \
        if (i < (size)) {                                            \
            const bool    whole = false;                             \
            const int64_t n     = (size) - i;                        \
            __VA_ARGS__                                              \
        }                                                            \
    }
#define LOAD_OR(p, fill) (whole ? v8_load((p) + i) : v8_load_part((p) + i, n, (fill)))
#define LOAD(p)          LOAD_OR(p, 0.0f)
#define STORE(p, v)      (whole ? v8_store((p) + i, (v)) : v8_store_part((p) + i, n, (v)))

#endif
