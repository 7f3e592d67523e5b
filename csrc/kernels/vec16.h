/* kernels/vec16.h - vectors of sixteen f32 lanes, for files that are compiled for AVX-512. */
#include <immintrin.h>
#include <string.h>

typedef float v16f __attribute__((vector_size(64)));

static inline v16f v16_load(const float * p) {
    v16f v;
    memcpy(&v, p, sizeof(v)); /* one unaligned load */
    return v;
}

static inline void v16_store(float * p, v16f v) {
    memcpy(p, &v, sizeof(v));
}

#define vec       v16f
#define LANES     16
#define vec_load  v16_load
#define vec_store v16_store
#define vec_set1(x) ((v16f) _mm512_set1_ps(x))
