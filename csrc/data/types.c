/* data/types.c - what ggml knows about the types of numbers, and their conversion to f32. */
#include "data/canonical_nan.h"
#include "machine/machine.h"

#include <stddef.h>

#include "ggml.h"

/* Returns the traits of a type that can be converted to f32, or NULL for another type. */
static const struct ggml_type_traits * readable(int32_t dtype) {
    if (dtype < 0 || dtype >= GGML_TYPE_COUNT) {
        return NULL;
    }
    const struct ggml_type_traits * traits = ggml_get_type_traits((enum ggml_type) dtype);
    return dtype == TNN_F32 || traits->to_float != NULL ? traits : NULL;
}

const char * tnn_type_name(int32_t dtype) {
    const struct ggml_type_traits * traits = readable(dtype);
    return traits != NULL ? traits->type_name : NULL;
}

int64_t tnn_type_block_size(int32_t dtype) {
    const struct ggml_type_traits * traits = readable(dtype);
    return traits != NULL ? traits->blck_size : 0;
}

int64_t tnn_type_block_nbytes(int32_t dtype) {
    const struct ggml_type_traits * traits = readable(dtype);
    return traits != NULL ? (int64_t) traits->type_size : 0;
}

int tnn_dequantize(int32_t dtype, const uint8_t * data, int64_t nbytes, float * out, int64_t n) {
    const struct ggml_type_traits * traits = readable(dtype);
    if (traits == NULL || data == NULL || out == NULL || n < 0 || n % traits->blck_size != 0 || nbytes < 0
        || (size_t) nbytes % traits->type_size != 0 || n / traits->blck_size != nbytes / (int64_t) traits->type_size) {
        return TNN_E_VALUE;
    }
    if (dtype == TNN_F32) {
        memcpy(out, data, (size_t) nbytes);
    } else {
        fenv_t callers;
        tnn__arithmetic_begin(&callers);
        traits->to_float(data, out, n);
        tnn__arithmetic_end(&callers);
    }
    for (int64_t i = 0; i < n; i++) {
        out[i] = tnn__canonical_nan(out[i]);
    }
    return TNN_OK;
}
