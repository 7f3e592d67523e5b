/* data/types.c - names and sizes of ggml's number types, and the conversion of numbers to and from f32. */
#include "data/canonical_nan.h"
#include "machine/machine.h"

#include <math.h>
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

/* ---- conversion from f32 ---- */

enum { CHUNK = 256 }; /* how many numbers are converted at once; the block size of each type divides it */

/* ggml divides by the scale of a block, and adds up squares. Within these limits, the quotients and sums stay finite.
 * The largest number of a type with f16 scales is below LARGEST; blocks of numbers below SMALLEST would get the
 * scale 0 in f16. */
#define LARGEST  0x1p28f
#define SMALLEST 0x1p-60f

/* Returns the traits of a type that ggml can convert to without tables and without an importance matrix, or NULL. */
static const struct ggml_type_traits * writable(int32_t dtype) {
    const struct ggml_type_traits * traits = readable(dtype);
    if (traits == NULL || dtype == GGML_TYPE_IQ2_S || dtype == GGML_TYPE_IQ3_XXS || dtype == GGML_TYPE_IQ3_S) {
        return NULL;
    }
    return dtype == TNN_F32 || traits->from_float_ref != NULL ? traits : NULL;
}

/* Copies numbers to be quantized. Returns false if a number is NaN, or if its absolute value is above LARGEST. */
static bool copy_within_limits(const float * data, float * copy, int64_t n) {
    bool fits = true;
    for (int64_t i = 0; i < n; i++) {
        const float size = fabsf(data[i]);
        fits    = fits && size <= LARGEST; /* the comparison is false for NaN */
        copy[i] = size < SMALLEST ? 0.0f : data[i];
    }
    return fits;
}

static bool all_finite(const float * data, int64_t n) {
    bool finite = true;
    for (int64_t i = 0; i < n; i++) {
        finite = finite && isfinite(data[i]);
    }
    return finite;
}

/* Converts up to CHUNK numbers. Returns false if the type cannot represent them. */
static bool quantize_chunk(int32_t dtype, const float * data, int64_t n, uint8_t * out) {
    const struct ggml_type_traits * traits = ggml_get_type_traits((enum ggml_type) dtype);
    float copy[CHUNK], back[CHUNK];
    if (!all_finite(data, n) || (traits->is_quantized && !copy_within_limits(data, copy, n))) {
        return false;
    }
    /* For iq4_nl, this function searches longer for the best scale than from_float_ref does. */
    ggml_quantize_chunk((enum ggml_type) dtype, traits->is_quantized ? copy : data, out, 0, 1, n, NULL);
    traits->to_float(out, back, n);
    return all_finite(back, n);
}

int tnn_quantize(int32_t dtype, const float * data, int64_t n, uint8_t * out, int64_t nbytes) {
    const struct ggml_type_traits * traits = writable(dtype);
    if (traits == NULL || data == NULL || out == NULL || n < 0 || n % traits->blck_size != 0 || nbytes < 0
        || (size_t) nbytes % traits->type_size != 0 || n / traits->blck_size != nbytes / (int64_t) traits->type_size) {
        return TNN_E_VALUE;
    }
    if (dtype == TNN_F32) {
        if (!all_finite(data, n)) {
            return TNN_E_VALUE;
        }
        memcpy(out, data, (size_t) nbytes);
        return TNN_OK;
    }
    fenv_t callers;
    tnn__arithmetic_begin(&callers);
    bool fits = true;
    for (int64_t i = 0; fits && i < n; i += CHUNK) {
        const int64_t count = n - i < CHUNK ? n - i : CHUNK;
        fits = quantize_chunk(dtype, data + i, count, out + (size_t) (i / traits->blck_size) * traits->type_size);
    }
    tnn__arithmetic_end(&callers);
    return fits ? TNN_OK : TNN_E_VALUE;
}
