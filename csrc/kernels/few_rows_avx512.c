/* kernels/few_rows_avx512.c - the product of few rows in vectors of sixteen. See kernels/gemm_avx512.c.
 * The bits are those of kernels/few_rows_v8.c. */
#include "kernels/gemm.h"

#ifdef TNN_GEMM_AVX512
#include "kernels/vec16.h"

typedef uint32_t v16u __attribute__((vector_size(64)));

#define vecu    v16u
#define VECTORS 4
#define vec_fma(a, b, c) ((v16f) _mm512_fmadd_ps((__m512) (a), (__m512) (b), (__m512) (c)))
#define vec_of_bits(w) ((v16f) (w))

static inline v16u bits_of(v16u w, uint32_t mask, uint32_t bits) {
    const int and_or = 0xea; /* the truth table of (a & b) | c */
    return (v16u) _mm512_ternarylogic_epi32((__m512i) w, _mm512_set1_epi32((int) mask), _mm512_set1_epi32((int) bits), and_or);
}

static inline v16f load_half(const uint16_t * from) {
    return (v16f) _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) from));
}

/* Converts f16 numbers to f32. Each lane holds the 16 bits of one number; its upper 16 bits are 0. */
static inline v16f half_low(v16u w) {
    return (v16f) _mm512_cvtph_ps(_mm512_cvtepi32_epi16((__m512i) w));
}

static inline __m512i four_rows(const char * from, size_t distance) {
    const __m512i two   = _mm512_inserti32x4(_mm512_castsi128_si512(_mm_loadu_si128((const __m128i *) from)),
                                             _mm_loadu_si128((const __m128i *) (from + distance)), 1);
    const __m512i three = _mm512_inserti32x4(two, _mm_loadu_si128((const __m128i *) (from + 2 * distance)), 2);
    return _mm512_inserti32x4(three, _mm_loadu_si128((const __m128i *) (from + 3 * distance)), 3);
}

static inline void load_transposed(const char * from, size_t stride, v16u w[4]) {
    __m512i r[4];
    for (size_t i = 0; i < 4; i++) {
        r[i] = four_rows(from + i * stride, 4 * stride); /* rows i, i + 4, i + 8 and i + 12 */
    }
    const __m512i a = _mm512_unpacklo_epi32(r[0], r[1]), b = _mm512_unpackhi_epi32(r[0], r[1]);
    const __m512i c = _mm512_unpacklo_epi32(r[2], r[3]), d = _mm512_unpackhi_epi32(r[2], r[3]);
    w[0] = (v16u) _mm512_unpacklo_epi64(a, c);
    w[1] = (v16u) _mm512_unpackhi_epi64(a, c);
    w[2] = (v16u) _mm512_unpacklo_epi64(b, d);
    w[3] = (v16u) _mm512_unpackhi_epi64(b, d);
}

#include "kernels/few_rows.h"

void tnn__few_rows_avx512(const struct tnn_gemm * g, void * scratch) {
    run_few_rows(g, scratch);
}
#endif
