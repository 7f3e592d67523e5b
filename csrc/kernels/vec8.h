/* kernels/vec8.h - vectors of eight f32 lanes, for the shim's own kernels.
 *
 * Code that uses them gives the same bits on every machine and with every compiler, because each operation is one IEEE
 * operation per lane (a fused multiply-add rounds once everywhere), and sums over lanes have one fixed order.
 */
#ifndef TNN_VEC8_H
#define TNN_VEC8_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define V8_LANES 8

typedef float   v8f __attribute__((vector_size(32)));
typedef int32_t v8i __attribute__((vector_size(32)));

static inline v8f v8_load(const float * p) {
    v8f v;
    memcpy(&v, p, sizeof(v)); /* one unaligned load */
    return v;
}

static inline void v8_store(float * p, v8f v) {
    memcpy(p, &v, sizeof(v));
}

static inline v8f v8_set1(float x) {
    return (v8f) { x, x, x, x, x, x, x, x };
}

#if defined(__aarch64__)
/* The two halves of a vector, for instructions that gcc cannot generate from vectors of eight. */
static inline float32x4_t v8_low(v8f v) {
    return (float32x4_t) { v[0], v[1], v[2], v[3] };
}

static inline float32x4_t v8_high(v8f v) {
    return (float32x4_t) { v[4], v[5], v[6], v[7] };
}

static inline v8f v8_join(float32x4_t low, float32x4_t high) {
    return (v8f) { low[0], low[1], low[2], low[3], high[0], high[1], high[2], high[3] };
}
#endif

/* a * b + c, rounded once */
static inline v8f v8_fma(v8f a, v8f b, v8f c) {
#if defined(__AVX2__) && defined(__FMA__)
    return (v8f) _mm256_fmadd_ps((__m256) a, (__m256) b, (__m256) c);
#elif defined(__aarch64__)
    return v8_join(vfmaq_f32(v8_low(c), v8_low(a), v8_low(b)), vfmaq_f32(v8_high(c), v8_high(a), v8_high(b)));
#else
    for (int i = 0; i < V8_LANES; i++) {
        c[i] = fmaf(a[i], b[i], c[i]);
    }
    return c;
#endif
}

/* for each lane: mask ? a : b, where mask is the result of a comparison */
static inline v8f v8_select(v8i mask, v8f a, v8f b) {
    return (v8f) (((v8i) a & mask) | ((v8i) b & ~mask));
}

/* for each lane: a > b ? a : b */
static inline v8f v8_max(v8f a, v8f b) {
#if defined(__AVX2__)
    return (v8f) _mm256_max_ps((__m256) a, (__m256) b);
#else
    return v8_select(a > b, a, b);
#endif
}

/* for each lane: a < b ? a : b */
static inline v8f v8_min(v8f a, v8f b) {
#if defined(__AVX2__)
    return (v8f) _mm256_min_ps((__m256) a, (__m256) b);
#else
    return v8_select(a < b, a, b);
#endif
}

static inline v8f v8_sqrt(v8f v) {
#if defined(__AVX2__)
    return (v8f) _mm256_sqrt_ps((__m256) v);
#elif defined(__aarch64__)
    return v8_join(vsqrtq_f32(v8_low(v)), vsqrtq_f32(v8_high(v)));
#else
    for (int i = 0; i < V8_LANES; i++) {
        v[i] = sqrtf(v[i]);
    }
    return v;
#endif
}

/* Returns the sum of the lanes, added in the order ((0+4)+(2+6)) + ((1+5)+(3+7)). */
static inline float v8_sum(v8f v) {
    const float even = (v[0] + v[4]) + (v[2] + v[6]);
    const float odd  = (v[1] + v[5]) + (v[3] + v[7]);
    return even + odd;
}

static inline float v8_max_lane(v8f v) {
    float max = v[0];
    for (int i = 1; i < V8_LANES; i++) {
        max = v[i] > max ? v[i] : max;
    }
    return max;
}

/* Loads the first n < 8 floats at p; the other lanes are fill. */
static inline v8f v8_load_part(const float * p, int64_t n, float fill) {
    v8f v = v8_set1(fill);
    memcpy(&v, p, (size_t) n * sizeof(float));
    return v;
}

static inline void v8_store_part(float * p, int64_t n, v8f v) {
    memcpy(p, &v, (size_t) n * sizeof(float));
}

/* exp(x), within 2 ulp for x in [-87, 88]; 0 below -87.3, inf above 88.7, NaN stays NaN.
 * exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln 2 / 2, exp(r) by its Taylor polynomial of degree 7. */
static inline v8f v8_exp(v8f x) {
    /* 1.5 * 2^23: adding it rounds to an integer, which is then in the low bits. */
    const v8f magic = v8_set1(12582912.0f);
    const v8f low   = v8_set1(-87.3365447f), high = v8_set1(88.7228394f);
    const v8f at    = v8_max(low, v8_min(high, x)); /* a NaN stays NaN */
    const v8f t     = v8_fma(at, v8_set1(1.44269504f), magic);
    const v8f n     = t - magic;
    v8f r = v8_fma(n, v8_set1(-0.693145752f), at);      /* the two constants add up to ln 2 */
    r     = v8_fma(n, v8_set1(-1.42860677e-6f), r);
    v8f p = v8_set1(1.0f / 5040.0f);
    p = v8_fma(p, r, v8_set1(1.0f / 720.0f));
    p = v8_fma(p, r, v8_set1(1.0f / 120.0f));
    p = v8_fma(p, r, v8_set1(1.0f / 24.0f));
    p = v8_fma(p, r, v8_set1(1.0f / 6.0f));
    p = v8_fma(p, r, v8_set1(0.5f));
    p = v8_fma(p, r, v8_set1(1.0f));
    p = v8_fma(p, r, v8_set1(1.0f));
    /* 2^n is computed as two factors, because n may be 128 or -126 */
    const v8i whole = (v8i) t - (v8i) magic;
    const v8i half  = whole >> 1;
    const v8f f1    = (v8f) ((half + 127) << 23);
    const v8f f2    = (v8f) ((whole - half + 127) << 23);
    const v8f y     = (p * f1) * f2;
    const v8f zero  = v8_set1(0.0f);
    return v8_select(x < low, zero, v8_select(x > high, v8_set1(INFINITY), v8_select(x == x, y, x)));
}

/* 1 / (1 + exp(-x)) */
static inline v8f v8_sigmoid(v8f x) {
    const v8f one = v8_set1(1.0f);
    return one / (one + v8_exp(-x));
}

/* Transposes an 8 x 8 block. */
static inline void v8_transpose(v8f r[V8_LANES]) {
#if defined(__AVX2__)
    __m256 t[8], u[8];
    for (int i = 0; i < 8; i += 2) {
        t[i]     = _mm256_unpacklo_ps((__m256) r[i], (__m256) r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps((__m256) r[i], (__m256) r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        u[i]     = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        u[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        u[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        u[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) {
        r[i]     = (v8f) _mm256_permute2f128_ps(u[i], u[i + 4], 0x20);
        r[i + 4] = (v8f) _mm256_permute2f128_ps(u[i], u[i + 4], 0x31);
    }
#else
    v8f t[V8_LANES];
    for (int i = 0; i < V8_LANES; i++) {
        for (int j = 0; j < V8_LANES; j++) {
            t[j][i] = r[i][j];
        }
    }
    memcpy(r, t, sizeof(t));
#endif
}

#endif
