/* kernels/gemm_f32.h - how products of f32 operands pack their operands. kernels/gemm_blocks.h includes this file if BF16
 * is not defined. */
#define K_UNIT 1 /* number of neighbouring elements along k that stay together */
#define CHAIN_BEGIN
#define CHAIN_END
#define KEEP(x)

/* Returns the number of elements of a panel's column that hold kc elements along k. */
static inline int64_t steps_of(int64_t kc) {
    return kc;
}

#if LANES == 16
/* Returns 4 elements of each of the columns 0, 4, 8 and 12. */
static inline __m512 four_columns(const float * b, int64_t b_col) {
    const __m512 one   = _mm512_castps128_ps512(_mm_loadu_ps(b));
    const __m512 two   = _mm512_insertf32x4(one, _mm_loadu_ps(b + 4 * b_col), 1);
    const __m512 three = _mm512_insertf32x4(two, _mm_loadu_ps(b + 8 * b_col), 2);
    return _mm512_insertf32x4(three, _mm_loadu_ps(b + 12 * b_col), 3);
}

/* Writes 4 elements of each of 16 columns to 4 rows of a panel. */
static inline void transpose_sixteen(const float * b, int64_t b_col, float * out) {
    const __m512 c0 = four_columns(b, b_col), c1 = four_columns(b + b_col, b_col);
    const __m512 c2 = four_columns(b + 2 * b_col, b_col), c3 = four_columns(b + 3 * b_col, b_col);
    const __m512d low01 = _mm512_castps_pd(_mm512_unpacklo_ps(c0, c1)), low23 = _mm512_castps_pd(_mm512_unpacklo_ps(c2, c3));
    const __m512d high01 = _mm512_castps_pd(_mm512_unpackhi_ps(c0, c1)), high23 = _mm512_castps_pd(_mm512_unpackhi_ps(c2, c3));
    vec_store(out, (vec) _mm512_unpacklo_pd(low01, low23));
    vec_store(out + NR, (vec) _mm512_unpackhi_pd(low01, low23));
    vec_store(out + 2 * NR, (vec) _mm512_unpacklo_pd(high01, high23));
    vec_store(out + 3 * NR, (vec) _mm512_unpackhi_pd(high01, high23));
}
#endif

/* Packs a panel, out [windows * kc][NR]: for each window, kc elements of each of `width` columns of B (at most NR). Columns
 * of the panel beyond the width are 0 if they belong to a vector that a tile reads. */
static void pack_panel(const float * b, int64_t b_row, int64_t b_col, int64_t kc, int64_t windows, int64_t width, float * out) {
    kc *= windows;
    if (b_col == 1) {
        if (width == NR) {
            for (int64_t p = 0; p < kc; p++) {
                for (int64_t j = 0; j < NR; j += LANES) {
                    vec_store(out + p * NR + j, vec_load(b + p * b_row + j));
                }
            }
        } else if (width % LANES == 0) { /* a tile of this width does not read the other columns */
            for (int64_t p = 0; p < kc; p++) {
                for (int64_t j = 0; j < width; j += LANES) {
                    vec_store(out + p * NR + j, vec_load(b + p * b_row + j));
                }
            }
        } else {
            for (int64_t p = 0; p < kc; p++) {
                memset(out + p * NR, 0, NR * sizeof(float));
                memcpy(out + p * NR, b + p * b_row, (size_t) width * sizeof(float));
            }
        }
        return;
    }
    /* columns are contiguous along k: blocks of 4 x 16 or 8 x 8 are transposed */
    const int64_t whole = kc / V8_LANES * V8_LANES;
    int64_t j = 0;
#if LANES == 16
    for (; j + LANES <= width; j += LANES) {
        for (int64_t p = 0; p < whole; p += 4) {
            transpose_sixteen(b + p + j * b_col, b_col, out + p * NR + j);
        }
        for (int64_t p = whole; p < kc; p++) {
            for (int64_t i = j; i < j + LANES; i++) {
                out[p * NR + i] = b[p + i * b_col];
            }
        }
    }
#endif
    for (; j + V8_LANES <= width; j += V8_LANES) {
        for (int64_t p = 0; p < whole; p += V8_LANES) {
            v8f r[V8_LANES];
            for (int i = 0; i < V8_LANES; i++) {
                r[i] = v8_load(b + p + (j + i) * b_col);
            }
            v8_transpose(r);
            for (int i = 0; i < V8_LANES; i++) {
                v8_store(out + (p + i) * NR + j, r[i]);
            }
        }
        for (int64_t p = whole; p < kc; p++) {
            for (int64_t i = j; i < j + V8_LANES; i++) {
                out[p * NR + i] = b[p + i * b_col];
            }
        }
    }
    for (int64_t p = 0; p < kc && j < NR; p++) {
        for (int64_t i = j; i < NR; i++) {
            out[p * NR + i] = i < width ? b[p + i * b_col] : 0.0f;
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
            pack_panel(stage, 1, kc, kc, 1, width, out + j * kc);
        }
        return;
    }
    for (int64_t p = 0; p < kc; p++) {
        const float * row = tnn__stored_row(w, p0 + p, w->first + j0, cols, stage);
        for (int64_t j = 0; j < cols; j += NR) {
            const int64_t width = tnn__min(NR, cols - j);
            float * const to    = out + j * kc + p * NR;
            if (width < NR) {
                memset(to, 0, NR * sizeof(float));
            }
            memcpy(to, row + j, (size_t) width * sizeof(float));
        }
    }
}

/* Packs rows of A as strips [windows * kc][height]. The elements of a column of A are contiguous. */
static void pack_columns(const float * a, int64_t a_col, int64_t kc, int64_t windows, const struct strips * strips, float * out) {
    kc *= windows;
    for (int64_t p = 0; p < kc; p++, a += a_col) {
        for (int64_t s = 0; s < strips->n; s++) {
            const int64_t i = strips->begin[s], height = strips->begin[s + 1] - i;
            if (height == MR) {
                memcpy(out + i * kc + p * MR, a + i, MR * sizeof(float));
            } else {
                for (int64_t r = 0; r < height; r++) {
                    out[i * kc + p * height + r] = a[i + r];
                }
            }
        }
    }
}

/* Copies kc elements of each row of A, which is contiguous along k, to rows of kc + TNN_GEMM_PAD elements. */
static void copy_rows(const float * a, int64_t a_row, int64_t kc, int64_t rows, float * out) {
    for (int64_t i = 0; i < rows; i++) {
        memcpy(out + i * (kc + TNN_GEMM_PAD), a + i * a_row, (size_t) kc * sizeof(float));
    }
}

/* Packs all columns of B as panels [k][NR], for products of at most TNN_GEMM_KC elements along k. */
static void pack_all(const struct tnn_gemm * g, float * panels) {
    for (int64_t j = 0; j < g->n; j += NR) {
        pack_panel(g->b + j * g->b_col, g->b_row, g->b_col, g->k, 1, tnn__min(NR, g->n - j), panels + j * g->k);
    }
}
