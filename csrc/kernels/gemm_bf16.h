/* kernels/gemm_bf16.h - how products of bfloat16 operands pack their operands and compute a chain.
 * kernels/gemm_blocks.h includes this file if BF16 is defined; kernels/bf16.h defines the bits of the result.
 *
 * The file that includes this defines PAIRS as 1 if vec_fma is vdpbf16ps, and as 0 if vec_fma is an f32 fused multiply-add.
 * Both operands are always packed. With PAIRS, an element of a panel is a pair: the product with the even index in the
 * low half, and that with the odd index in the high half. Without PAIRS, a panel contains rounded f32 values, in the order in
 * which the chain takes them: 1, 0, 3, 2, ... So the loop over a tile is the same as for f32.
 */
#include "kernels/bf16.h"

#define K_UNIT 2 /* number of neighbouring elements along k that stay together */

typedef uint32_t vecu __attribute__((vector_size(4 * LANES)));

/* Rounds as v8_bf16_round does. */
static inline vecu round_vec(vec x) {
#if LANES == 16 /* if vectors of sixteen are compared, gcc generates more instructions */
    const __m512i u    = (__m512i) x;
    const __m512i half = _mm512_add_epi32(_mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1)), _mm512_set1_epi32(0x7fff));
    const __mmask16 nan = _mm512_cmp_ps_mask((__m512) x, (__m512) x, _CMP_UNORD_Q);
    const __m512i up   = _mm512_mask_or_epi32(_mm512_add_epi32(u, half), nan, u, _mm512_set1_epi32(QUIET_NAN));
    return (vecu) up & BF16_MASK;
#else
    const vecu u = (vecu) x, nan = (vecu) (x != x);
    return ((u + ((0x7fffu + (u >> 16 & 1u)) & ~nan)) | (nan & QUIET_NAN)) & BF16_MASK;
#endif
}

/* Returns the number of elements of a panel's column that hold kc elements along k. */
static inline int64_t steps_of(int64_t kc) {
    return PAIRS ? (kc + 1) / 2 : (kc + 1) / 2 * 2;
}

/* Writes the elements 2q and 2q + 1 along k, which are already rounded, of one column of B or of one row of A.
 * Consecutive steps are `step` elements apart. */
static inline void put_pair(float * out, int64_t step, int64_t q, float even, float odd) {
    if (PAIRS) {
        uint32_t low, high;
        memcpy(&low, &even, sizeof(low));
        memcpy(&high, &odd, sizeof(high));
        high |= low >> 16;
        memcpy(out + q * step, &high, sizeof(high));
    } else {
        out[2 * q * step]       = odd;
        out[(2 * q + 1) * step] = even;
    }
}

/* Writes the elements of several columns side by side, as put_pair does for one column. */
static inline void put_vectors(float * out, int64_t step, int64_t q, vecu even, vecu odd) {
    if (PAIRS) {
        vec_store(out + q * step, (vec) (even >> 16 | odd));
    } else {
        vec_store(out + 2 * q * step, (vec) odd);
        vec_store(out + (2 * q + 1) * step, (vec) even);
    }
}

/* Writes vectors of eight columns. */
static inline void put_eights(float * out, int64_t step, int64_t q, v8u even, v8u odd) {
    if (PAIRS) {
        v8_store(out + q * step, (v8f) (even >> 16 | odd));
    } else {
        v8_store(out + 2 * q * step, (v8f) odd);
        v8_store(out + (2 * q + 1) * step, (v8f) even);
    }
}

/* Packs a panel, out [steps_of(kc)][NR], for each window: kc elements of each of `width` columns of B (at most NR).
 * Columns beyond the width are 0. */
static void pack_panel(const float * b, int64_t b_row, int64_t b_col, int64_t kc, int64_t windows, int64_t width, float * out) {
    for (int64_t w = 0; w < windows; w++, b += kc * b_row, out += steps_of(kc) * NR) {
        int64_t j = 0, p = 0;
        if (b_col == 1) {
            for (const int64_t whole = width / LANES * LANES; p < kc; p += 2) {
                const float * from = b + p * b_row;
                for (j = 0; j < whole; j += LANES) {
                    const vec odd = p + 1 < kc ? vec_load(from + b_row + j) : vec_set1(0.0f);
                    put_vectors(out + j, NR, p / 2, round_vec(vec_load(from + j)), round_vec(odd));
                }
            }
        }
        for (; b_col != 1 && j + V8_LANES <= width; j += V8_LANES) { /* columns are contiguous along k */
            for (p = 0; p + V8_LANES <= kc; p += V8_LANES) {
                v8f r[V8_LANES];
                for (int i = 0; i < V8_LANES; i++) {
                    r[i] = (v8f) v8_bf16_round(v8_load(b + p + (j + i) * b_col));
                }
                v8_transpose(r);
                for (int i = 0; i < V8_LANES; i += 2) {
                    put_eights(out + j, NR, (p + i) / 2, (v8u) r[i], (v8u) r[i + 1]);
                }
            }
            for (; p < kc; p += 2) {
                for (int64_t i = j; i < j + V8_LANES; i++) {
                    put_pair(out + i, NR, p / 2, bf16_round(b[p + i * b_col]), p + 1 < kc ? bf16_round(b[p + 1 + i * b_col]) : 0.0f);
                }
            }
        }
        for (; j < NR; j++) {
            for (p = 0; p < kc; p += 2) {
                const float * from = b + p * b_row + j * b_col;
                put_pair(out + j, NR, p / 2, j < width ? bf16_round(from[0]) : 0.0f,
                         j < width && p + 1 < kc ? bf16_round(from[b_row]) : 0.0f);
            }
        }
    }
}

/* Packs kc x cols elements of a stored B, from row p0 and column j0 on, as panels. */
static void pack_stored(const struct tnn_stored * w, int64_t p0, int64_t kc, int64_t j0, int64_t cols, float * stage, float * out) {
    if (w->transposed) { /* a column of B is a row of the matrix, and p0 and kc are multiples of a block */
        for (int64_t j = 0; j < cols; j += NR) {
            const int64_t width = tnn__min(NR, cols - j);
            for (int64_t s = 0; s < width; s++) {
                tnn__stored_row(w, w->first + j0 + j + s, p0, kc, stage + s * kc);
            }
            pack_panel(stage, 1, kc, kc, 1, width, out + j * steps_of(kc));
        }
        return;
    }
    const int64_t stride = TNN_GEMM_STAGE / 2;
    for (int64_t p = 0; p < kc; p += 2) {
        const int64_t n = tnn__min(2, kc - p);
        const float * row = NULL;
        /* after the loop, row is the address of the first row, and the second row begins stride elements later */
        for (int64_t i = n - 1; i >= 0; i--) {
            row = tnn__stored_row(w, p0 + p + i, w->first + j0, cols, stage + i * stride);
        }
        for (int64_t j = 0; j < cols; j += NR) {
            pack_panel(row + j, stride, 1, n, 1, tnn__min(NR, cols - j), out + j * steps_of(kc) + steps_of(p) * NR);
        }
    }
}

/* Packs rows of A as strips [windows][steps_of(kc)][height]. The elements of a column of A are contiguous. */
static void pack_columns(const float * a, int64_t a_col, int64_t kc, int64_t windows, const struct strips * strips, float * out) {
    const int64_t steps = steps_of(kc), rows = strips->begin[strips->n];
    const int64_t width = MC + LANES, lines = PAIRS ? 1 : 2;
    float packed[2 * (MC + LANES)]; /* one pair of columns */
    for (int64_t w = 0; w < windows; w++, a += kc * a_col) {
        for (int64_t q = 0; 2 * q < kc; q++) {
            const float * even = a + 2 * q * a_col, * odd = 2 * q + 1 < kc ? even + a_col : NULL;
            int64_t done = 0;
            for (; done + LANES <= rows; done += LANES) {
                const vec y = odd != NULL ? vec_load(odd + done) : vec_set1(0.0f);
                put_vectors(packed + done, width, 0, round_vec(vec_load(even + done)), round_vec(y));
            }
            for (; done < rows; done++) {
                put_pair(packed + done, width, 0, bf16_round(even[done]), odd != NULL ? bf16_round(odd[done]) : 0.0f);
            }
            for (int64_t s = 0; s < strips->n; s++) {
                const int64_t i = strips->begin[s], height = strips->begin[s + 1] - i;
                float * to = out + i * steps * windows + (w * steps + q * lines) * height;
                for (int64_t line = 0; line < lines; line++, to += height) {
                    if (height == MR) {
                        memcpy(to, packed + line * width + i, MR * sizeof(float));
                    } else {
                        memcpy(to, packed + line * width + i, (size_t) height * sizeof(float));
                    }
                }
            }
        }
    }
}

/* Packs kc elements of each row of A, which is contiguous along k, as rows of steps_of(kc) + TNN_GEMM_PAD elements. */
static void copy_rows(const float * a, int64_t a_row, int64_t kc, int64_t rows, float * out) {
    typedef uint64_t pairs __attribute__((vector_size(4 * LANES)));   /* a pair of neighbours in each lane */
    typedef uint32_t packed __attribute__((vector_size(2 * LANES)));
    for (int64_t i = 0; i < rows; i++, a += a_row, out += steps_of(kc) + TNN_GEMM_PAD) {
        int64_t p = 0;
        for (; p + LANES <= kc; p += LANES) {
            const pairs x = (pairs) round_vec(vec_load(a + p));
            if (PAIRS) {
                const packed y = __builtin_convertvector((x >> 16 & 0xffffu) | x >> 32, packed);
                memcpy(out + p / 2, &y, sizeof(y));
            } else {
                vec_store(out + p, (vec) (x << 32 | x >> 32));
            }
        }
        for (; p < kc; p += 2) {
            put_pair(out, 1, p / 2, bf16_round(a[p]), p + 1 < kc ? bf16_round(a[p + 1]) : 0.0f);
        }
    }
}

/* ------------------------------------------------------------------ the mode of a chain */

/* A chain runs between CHAIN_BEGIN and CHAIN_END, in a mode in which f32 operations replace denormals by zeros. KEEP keeps the
 * compiler from moving operations on a register out of the chain. Sums that follow a chain are in the default mode. */
#if PAIRS || !defined(FLUSHES)
#define CHAIN_BEGIN
#define CHAIN_END
#define KEEP(x)
#elif defined(__x86_64__)
#define CHAIN_BEGIN                                         \
    const unsigned int mode = _mm_getcsr();                 \
    _mm_setcsr(mode | 0x8040); /* sets the bits FTZ and DAZ */   \
    __asm__ volatile("" ::: "memory");
#define CHAIN_END                                           \
    __asm__ volatile("" ::: "memory");                      \
    _mm_setcsr(mode);
#define KEEP(x) __asm__ volatile("" : "+v"(x));
#else /* aarch64 */
/* This mode flushes a result if it is below FLT_MIN before rounding, not after. So if the processor reports that it
 * flushed a result, exact_chain computes the tile again. */
#define CHAIN_BEGIN                                                                       \
    uint64_t mode, status;                                                                \
    __asm__ volatile("mrs %0, fpcr\n\tmrs %1, fpsr" : "=r"(mode), "=r"(status));          \
    __asm__ volatile("msr fpsr, %1\n\tmsr fpcr, %0"                                       \
                     :: "r"(mode | (1u << 24)), "r"(status & ~(uint64_t) (1u << 3)) : "memory"); /* FZ; UFC */
#define CHAIN_END                                                                         \
    __asm__ volatile("mrs %0, fpsr\n\tmsr fpcr, %1" : "=r"(status) : "r"(mode) : "memory");
#define KEEP(x) __asm__ volatile("" : "+w"(x));
#define CHAIN_FLUSHED ((status & (1u << 3)) != 0)
#endif
