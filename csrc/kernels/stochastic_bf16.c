/* kernels/stochastic_bf16.c - stochastic rounding to bfloat16 of a slice of a moment. */
#include "kernels/stochastic_bf16.h"

#include "machine/machine.h"
#include "session.h"

int tnn_slice_round(float * values, int64_t n, int32_t seed, int32_t step, int64_t first, int32_t second) {
    if (values == NULL || n < 0 || first < 0 || first > INT32_MAX - n || (second != 0 && second != 1)) {
        return TNN_E_VALUE;
    }
    const uint32_t key = tnn__rounding_key(seed, step);
    for (int64_t i = 0; i < n; i += V8_LANES) {
        const int64_t left   = n - i < V8_LANES ? n - i : V8_LANES;
        const v8u     random = v8_random(key, first + i);
        v8_store_part(values + i, left, v8_bf16_stochastic(v8_load_part(values + i, left, 0.0f), second ? random >> 16 : random & 0xffffu));
    }
    return TNN_OK;
}
