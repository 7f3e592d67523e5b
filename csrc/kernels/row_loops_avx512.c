/* kernels/row_loops_avx512.c - the loops over rows in vectors of sixteen. See kernels/gemm_avx512.c. */
#include "kernels/gemm.h"

#ifdef TNN_GEMM_AVX512
#include "kernels/vec8.h"
#include "kernels/vec16.h"

#define FOR_SIXTEENS

static inline v8f v16_low(v16f v) {
    return (v8f) _mm512_castps512_ps256((__m512) v);
}

static inline v8f v16_high(v16f v) {
    return (v8f) _mm512_extractf32x8_ps((__m512) v, 1);
}

/* Computes what v8_max computes. */
static inline v16f v16_max(v16f a, v16f b) {
    return (v16f) _mm512_max_ps((__m512) a, (__m512) b);
}

/* Computes what v8_exp computes, with the same operations. vscalefps multiplies by 2^n and rounds once. v8_exp
 * multiplies by two factors, but the first product is exact, so v8_exp rounds once too. */
static inline v16f v16_exp(v16f values) {
    const __m512 x     = (__m512) values, magic = _mm512_set1_ps(12582912.0f);
    const __m512 low   = _mm512_set1_ps(-87.3365447f), high = _mm512_set1_ps(88.7228394f);
    const __m512 at    = _mm512_max_ps(low, _mm512_min_ps(high, x)); /* a NaN stays NaN */
    const __m512 n     = _mm512_sub_ps(_mm512_fmadd_ps(at, _mm512_set1_ps(1.44269504f), magic), magic);
    __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(-0.693145752f), at);
    r = _mm512_fmadd_ps(n, _mm512_set1_ps(-1.42860677e-6f), r);
    __m512 p = _mm512_set1_ps(1.0f / 5040.0f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 720.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 120.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 24.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 6.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    __m512 y = _mm512_scalef_ps(p, n);
    y = _mm512_mask_mov_ps(y, _mm512_cmp_ps_mask(x, high, _CMP_GT_OQ), _mm512_set1_ps(INFINITY));
    y = _mm512_mask_mov_ps(y, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), x);
    return (v16f) _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, low, _CMP_NLT_UQ), y);
}

static inline v16f v16_fma(v16f a, v16f b, v16f c) {
    return (v16f) _mm512_fmadd_ps((__m512) a, (__m512) b, (__m512) c);
}

static inline v16f v16_sigmoid(v16f x) {
    const v16f one = vec_set1(1.0f);
    return one / (one + v16_exp(-x));
}

#include "kernels/row_loops_code.h"

const struct tnn_row_loops tnn__row_loops_avx512 = {
    .row_max = row_max, .add_exp = add_exp, .normalise = normalise, .subtract_mean = subtract_mean,
    .swiglu = swiglu, .swiglu_back = swiglu_back,
};
#endif
