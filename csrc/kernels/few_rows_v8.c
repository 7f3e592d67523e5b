/* kernels/few_rows_v8.c - the product of few rows in vectors of eight. It needs only the instructions of the build's profile, so
 * every CPU can run it. */
#include "kernels/vec8.h"

#define vec         v8f
#define vecu        v8u
#define LANES       V8_LANES
#define VECTORS     8
#define vec_load    v8_load
#define vec_store   v8_store
#define vec_set1    v8_set1
#define vec_fma     v8_fma
#define vec_of_bits(w) ((v8f) (w))

typedef uint32_t v8u __attribute__((vector_size(32)));

static inline v8u bits_of(v8u w, uint32_t mask, uint32_t bits) {
    return (w & mask) | bits;
}

#if defined(__AVX2__) && defined(__F16C__)

static inline v8f load_half(const uint16_t * from) {
    return (v8f) _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) from));
}

/* Converts f16 numbers to f32. Each lane holds the 16 bits of one number; its upper 16 bits are 0. */
static inline v8f half_low(v8u w) {
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32((__m256i) w, (__m256i) w), 0x08);
    return (v8f) _mm256_cvtph_ps(_mm256_castsi256_si128(packed));
}

static inline void load_transposed(const char * from, size_t stride, v8u w[4]) {
    __m256i r[4];
    for (size_t i = 0; i < 4; i++) { /* rows i and i + 4 */
        const __m128i low = _mm_loadu_si128((const __m128i *) (from + i * stride));
        r[i] = _mm256_inserti128_si256(_mm256_castsi128_si256(low), _mm_loadu_si128((const __m128i *) (from + (i + 4) * stride)), 1);
    }
    const __m256i a = _mm256_unpacklo_epi32(r[0], r[1]), b = _mm256_unpackhi_epi32(r[0], r[1]);
    const __m256i c = _mm256_unpacklo_epi32(r[2], r[3]), d = _mm256_unpackhi_epi32(r[2], r[3]);
    w[0] = (v8u) _mm256_unpacklo_epi64(a, c);
    w[1] = (v8u) _mm256_unpackhi_epi64(a, c);
    w[2] = (v8u) _mm256_unpacklo_epi64(b, d);
    w[3] = (v8u) _mm256_unpackhi_epi64(b, d);
}

#else
#include "ggml.h"

static inline v8f load_half(const uint16_t * from) {
    v8f v;
    for (int s = 0; s < V8_LANES; s++) {
        v[s] = ggml_fp16_to_fp32(from[s]);
    }
    return v;
}

static inline v8f half_low(v8u w) {
    v8f v;
    for (int s = 0; s < V8_LANES; s++) {
        v[s] = ggml_fp16_to_fp32((uint16_t) w[s]);
    }
    return v;
}

static inline void load_transposed(const char * from, size_t stride, v8u w[4]) {
    uint32_t words[V8_LANES][4];
    for (int s = 0; s < V8_LANES; s++) {
        memcpy(words[s], from + (size_t) s * stride, sizeof(words[s]));
    }
    for (int i = 0; i < 4; i++) {
        w[i] = (v8u) { words[0][i], words[1][i], words[2][i], words[3][i], words[4][i], words[5][i], words[6][i], words[7][i] };
    }
}

#endif

#include "kernels/few_rows.h"

void tnn__few_rows_v8(const struct tnn_gemm * g, void * scratch) {
    run_few_rows(g, scratch);
}
