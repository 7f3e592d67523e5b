/* data/random.c - the two random streams from which the Ruby project toy draws initial weights, computed with integers and
 * the C library's f64 functions. */
#include "machine/machine.h"

#include <math.h>
#include <stddef.h>

#define LCG_MASK UINT64_C(0x7fffffff)

/* Returns a uniform number in (0, 1]: s becomes (s * 1103515245 + 12345) mod 2^31, and the number is (s + 1) / 2^31. */
static double lcg31_uniform(uint64_t * s) {
    *s = (*s * UINT64_C(1103515245) + 12345) & LCG_MASK; /* wraps mod 2^64, which is harmless because 2^64 is a multiple
    of 2^31 */
    return ((double) *s + 1.0) / 2147483648.0;
}

/* Returns a uniform number in (0, 1]: Marsaglia's xorshift 13, 7, 17 over 2^64, plus 1e-300. A state of 0 stays 0. */
static double xorshift64_uniform(uint64_t * s) {
    uint64_t x = *s;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    *s = x;
    return (double) x / 18446744073709551616.0 + 1e-300;
}

static double uniform(int32_t kind, uint64_t * s) {
    return kind == TNN_RANDOM_LCG31 ? lcg31_uniform(s) : xorshift64_uniform(s);
}

/* The state is ((seed + 104729) * 2654435761) mod 2147483647, a remainder that is never negative. The first 8 draws are
 * discarded. */
static uint64_t lcg31_seed(int64_t seed) {
    const int64_t modulus = 2147483647;
    /* The sum is reduced mod m before the multiplication, so that the product fits 62 bits. */
    const int64_t sum = (seed % modulus + 104729) % modulus;
    const int64_t residue = sum < 0 ? sum + modulus : sum;
    uint64_t s = ((uint64_t) residue * (UINT64_C(2654435761) % (uint64_t) modulus)) % (uint64_t) modulus;
    if (s == 0) {
        s = (uint64_t) seed + 104729; /* the first draw reduces s mod 2^31 */
    }
    for (int i = 0; i < 8; i++) {
        lcg31_uniform(&s);
    }
    return s;
}

int tnn_random_seed(int32_t kind, int64_t seed, uint64_t * state) {
    if (state == NULL || (kind != TNN_RANDOM_LCG31 && kind != TNN_RANDOM_XORSHIFT64)) {
        return TNN_E_VALUE;
    }
    *state = kind == TNN_RANDOM_LCG31 ? lcg31_seed(seed) : (uint64_t) seed;
    return TNN_OK;
}

int tnn_random_gaussian(int32_t kind, uint64_t * state, double std, float * data, int64_t n) {
    const double two_pi = 2.0 * 3.14159265358979323846;
    if (state == NULL || data == NULL || n < 0 || !isfinite(std) || (kind != TNN_RANDOM_LCG31 && kind != TNN_RANDOM_XORSHIFT64)) {
        return TNN_E_VALUE;
    }
    fenv_t callers;
    tnn__arithmetic_begin(&callers);
    for (int64_t i = 0; i < n; i += 2) {
        const double u1 = fmax(uniform(kind, state), 1e-300);
        const double u2 = uniform(kind, state);
        const double r  = sqrt(-2.0 * log(u1));
        const double th = two_pi * u2;
        data[i] = (float) (r * cos(th) * std);
        if (i + 1 < n) {
            data[i + 1] = (float) (r * sin(th) * std);
        }
    }
    tnn__arithmetic_end(&callers);
    return TNN_OK;
}
