/* data/canonical_nan.h - replaces every NaN by the same NaN. The sign of a NaN that an operation makes depends on the
 * processor, and the compiler decides which operand's NaN becomes the result. Results that leave the shim contain only
 * the positive quiet NaN without a payload. */
#ifndef TNN_CANONICAL_NAN_H
#define TNN_CANONICAL_NAN_H

#include <stdint.h>
#include <string.h>

static inline float tnn__canonical_nan(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    bits = (bits & UINT32_C(0x7fffffff)) > UINT32_C(0x7f800000) ? UINT32_C(0x7fc00000) : bits;
    memcpy(&x, &bits, sizeof(bits));
    return x;
}

#endif
