/* kernels/stochastic_bf16.h - stochastic rounding to bfloat16, for the moments of optimizers.
 *
 * A number between two neighbouring bfloat16 numbers is rounded to one of them at random. The nearer number is more likely,
 * so that the expected value of the result is the number itself. Small changes of a moment are therefore not lost. The
 * random bits are a hash of the seed of the weight, the number of the step, and the place of the element in the weight.
 * So the bits of a result do not depend on threads, and a resumed run rounds in the same way as a run without an
 * interruption. */
#ifndef TNN_STOCHASTIC_BF16_H
#define TNN_STOCHASTIC_BF16_H

#include "kernels/bf16.h"

typedef uint16_t v8h __attribute__((vector_size(16)));

/* A bijection of 32 bits in which each bit of x changes each bit of the result with a probability of about 1/2. The
 * constants are those of "lowbias32" by Chris Wellons. */
#define TNN_MIX(x)          \
    do {                    \
        x ^= x >> 16;       \
        x *= 0x7feb352du;   \
        x ^= x >> 15;       \
        x *= 0x846ca68bu;   \
        x ^= x >> 16;       \
    } while (0)

/* Returns the key of the random bits of a weight in a step. */
static inline uint32_t tnn__rounding_key(int32_t seed, int32_t step) {
    uint32_t key = (uint32_t) seed;
    TNN_MIX(key);
    key ^= (uint32_t) step;
    TNN_MIX(key);
    return key;
}

/* Returns 32 random bits for each of the elements i to i + 7. */
static inline v8u v8_random(uint32_t key, int64_t i) {
    const v8u lanes = { 0, 1, 2, 3, 4, 5, 6, 7 };
    v8u x = (lanes + (uint32_t) i) ^ key;
    TNN_MIX(x);
    return x;
}

/* Rounds x to bfloat16. random: a number below 2^16 for each lane. A finite number stays finite. */
static inline v8f v8_bf16_stochastic(v8f x, v8u random) {
    const uint32_t exponent = 0x7f800000u;
    const v8u u = (v8u) x, up = u + random, keep = (v8u) ((up & exponent) == exponent);
    return (v8f) (((up & ~keep) | (u & keep)) & BF16_MASK);
}

/* Loads n <= 8 bfloat16 numbers as f32; the other lanes are 0. */
static inline v8f v8_load_bf16(const uint16_t * p, int64_t n) {
    v8h half = { 0 };
    memcpy(&half, p, (size_t) n * sizeof(*p));
    return (v8f) (__builtin_convertvector(half, v8u) << 16);
}

/* Stores the first n <= 8 lanes, which are bfloat16 numbers. */
static inline void v8_store_bf16(uint16_t * p, int64_t n, v8f x) {
    const v8h half = __builtin_convertvector((v8u) x >> 16, v8h);
    memcpy(p, &half, (size_t) n * sizeof(*p));
}

#endif
