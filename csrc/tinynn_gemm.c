/* tinynn_gemm.c - a packed, register-blocked matrix product with one order along k. See tinynn_gemm.h for its promise.
 *
 * The scheme is Goto's: B is packed into panels of NR columns, a KC x NC block at a time; A is read in strips of MR rows,
 * in place where its rows are contiguous along k and packed where its columns are; the micro-kernel keeps an MR x NR tile of
 * C in twelve registers. Unlike a BLAS it never keeps partial sums apart: a tile goes back to C between two blocks of k and
 * is the start of the next, which is what fixes the order of the sum.
 */
#include "tinynn_gemm.h"

#include "tinynn_vec.h"

#define MR 6
#define NR 16
#define KC 384 /* a panel of B: 24 KiB, half of a usual L1 */
#define MC 96  /* packed rows of A: 144 KiB, in L2 */
#define NC 512 /* a block of B: 768 KiB at most, in L2 or L3 */

static int64_t min_i64(int64_t a, int64_t b) {
    return a < b ? a : b;
}

size_t tnn__gemm_scratch(void) {
    return sizeof(float) * (KC * NC + MC * KC + MR * NR);
}

/* ------------------------------------------------------------------ packing */

/* Columns j0..j0+cols of B, rows p0..p0+kc, as panels [NR columns][kc][NR]; columns beyond n are 0. */
static void pack_b(const struct tnn_gemm * g, int64_t p0, int64_t kc, int64_t j0, int64_t cols, float * out) {
    for (int64_t j = 0; j < cols; j += NR, out += kc * NR) {
        const int64_t width = min_i64(NR, cols - j);
        const float * b     = g->b + p0 * g->b_row + (j0 + j) * g->b_col;
        if (g->b_col == 1) {
            if (width == NR) {
                for (int64_t p = 0; p < kc; p++) {
                    v8_store(out + p * NR, v8_load(b + p * g->b_row));
                    v8_store(out + p * NR + 8, v8_load(b + p * g->b_row + 8));
                }
            } else {
                for (int64_t p = 0; p < kc; p++) {
                    memset(out + p * NR, 0, NR * sizeof(float));
                    memcpy(out + p * NR, b + p * g->b_row, (size_t) width * sizeof(float));
                }
            }
            continue;
        }
        /* columns are contiguous along k: blocks of 8 x 8 are transposed */
        int64_t p = 0;
        if (width == NR) {
            for (; p + 8 <= kc; p += 8) {
                for (int half = 0; half < NR; half += 8) {
                    v8f r[8];
                    for (int i = 0; i < 8; i++) {
                        r[i] = v8_load(b + p + (half + i) * g->b_col);
                    }
                    v8_transpose(r);
                    for (int i = 0; i < 8; i++) {
                        v8_store(out + (p + i) * NR + half, r[i]);
                    }
                }
            }
        }
        for (; p < kc; p++) {
            for (int64_t i = 0; i < NR; i++) {
                out[p * NR + i] = i < width ? b[p * g->b_row + i * g->b_col] : 0.0f;
            }
        }
    }
}

/* Rows i0..i0+rows of A (contiguous down its columns), columns p0..p0+kc, as strips [MR rows][kc][MR]; the last may be short. */
static void pack_a(const struct tnn_gemm * g, int64_t i0, int64_t rows, int64_t p0, int64_t kc, float * out) {
    for (int64_t i = 0; i < rows; i += MR, out += kc * MR) {
        const int64_t height = min_i64(MR, rows - i);
        const float * a      = g->a + (i0 + i) * g->a_row + p0 * g->a_col;
        if (height == MR) {
            for (int64_t p = 0; p < kc; p++) {
                memcpy(out + p * MR, a + p * g->a_col, MR * sizeof(float));
            }
        } else {
            for (int64_t p = 0; p < kc; p++) {
                for (int64_t r = 0; r < MR; r++) {
                    out[p * MR + r] = r < height ? a[p * g->a_col + r] : 0.0f;
                }
            }
        }
    }
}

/* ------------------------------------------------------------------ the micro-kernel */

#define ROWS(X) X(0) X(1) X(2) X(3) X(4) X(5)

/* An MR x NR tile. row[r] + p*step is A's element (r, p); b is a packed panel. The chain starts from c (or 0) and its end
 * goes to out; both have rows of the given strides. */
static inline __attribute__((always_inline)) void tile(int64_t kc, const float * const row[MR], int64_t step, const float * b,
                                                       const float * c, int64_t c_row, const float * bias, const float * add,
                                                       float * out, int64_t out_row) {
#define DECLARE(r) v8f lo##r = v8_set1(0.0f), hi##r = lo##r; const float * const a##r = row[r];
    ROWS(DECLARE)
#undef DECLARE
    if (c != NULL) {
#define LOAD(r) lo##r = v8_load(c + r * c_row); hi##r = v8_load(c + r * c_row + 8);
        ROWS(LOAD)
#undef LOAD
    }
    for (int64_t p = 0; p < kc; p++) {
        const v8f b0 = v8_load(b + p * NR), b1 = v8_load(b + p * NR + 8);
#define STEP(r) { const v8f x = v8_set1(a##r[p * step]); lo##r = v8_fma(x, b0, lo##r); hi##r = v8_fma(x, b1, hi##r); }
        ROWS(STEP)
#undef STEP
    }
    if (bias != NULL) {
        const v8f b0 = v8_load(bias), b1 = v8_load(bias + 8);
#define BIAS(r) lo##r += b0; hi##r += b1;
        ROWS(BIAS)
#undef BIAS
    }
    if (add != NULL) {
#define ADD(r) lo##r += v8_load(add + r * c_row); hi##r += v8_load(add + r * c_row + 8);
        ROWS(ADD)
#undef ADD
    }
#define STORE(r) v8_store(out + r * out_row, lo##r); v8_store(out + r * out_row + 8, hi##r);
    ROWS(STORE)
#undef STORE
}

static void tile_in_place(int64_t kc, const float * const row[MR], const float * b, const float * c, int64_t c_row, const float * bias,
                          const float * add, float * out, int64_t out_row) {
    tile(kc, row, 1, b, c, c_row, bias, add, out, out_row);
}

static void tile_packed(int64_t kc, const float * const row[MR], const float * b, const float * c, int64_t c_row, const float * bias,
                        const float * add, float * out, int64_t out_row) {
    tile(kc, row, MR, b, c, c_row, bias, add, out, out_row);
}

/* ------------------------------------------------------------------ blocks */

struct block {
    const struct tnn_gemm * g;
    int64_t       p0, kc;  /* along k */
    int64_t       j0;      /* first column */
    bool          first, last;
    const float * packed_a; /* of this strip, or NULL */
    const float * packed_b; /* of this panel */
    float       * spill;    /* one tile */
};

/* The tile at (i, j), whole or cut by the edge of C. */
static void compute_tile(const struct block * k, int64_t i, int64_t j) {
    const struct tnn_gemm * g = k->g;
    const int64_t height = min_i64(MR, g->m - i), width = min_i64(NR, g->n - j);
    const float * row[MR];
    for (int64_t r = 0; r < MR; r++) { /* rows beyond the edge repeat the last: computed, not stored */
        row[r] = k->packed_a != NULL ? k->packed_a + r : g->a + (i + min_i64(r, height - 1)) * g->a_row + k->p0;
    }
    void (*const kernel)(int64_t, const float * const *, const float *, const float *, int64_t, const float *, const float *, float *,
                         int64_t) = k->packed_a != NULL ? tile_packed : tile_in_place;
    float      * c        = g->c + i * g->c_row + j;
    const bool   continues = g->accumulate || !k->first;
    const float * bias    = k->last && g->bias != NULL ? g->bias + j : NULL;
    const float * add     = k->last && g->add != NULL ? g->add + i * g->c_row + j : NULL;
    if (height == MR && width == NR) {
        kernel(k->kc, row, k->packed_b, continues ? c : NULL, g->c_row, bias, add, c, g->c_row);
        return;
    }
    if (continues) {
        for (int64_t r = 0; r < height; r++) {
            for (int64_t s = 0; s < width; s++) {
                k->spill[r * NR + s] = c[r * g->c_row + s];
            }
        }
    }
    kernel(k->kc, row, k->packed_b, continues ? k->spill : NULL, NR, NULL, NULL, k->spill, NR);
    for (int64_t r = 0; r < height; r++) {
        for (int64_t s = 0; s < width; s++) {
            float x = k->spill[r * NR + s];
            x = bias != NULL ? x + bias[s] : x;
            x = add != NULL ? x + add[r * g->c_row + s] : x;
            c[r * g->c_row + s] = x;
        }
    }
}

/* ------------------------------------------------------------------ a row or two */

/* y = B^T x for the rows of A one by one, B's columns contiguous along k: nothing is packed, each weight is read once. Eight
 * columns go together; the order along k is the tile's. */
static void few_rows(const struct tnn_gemm * g) {
    for (int64_t i = 0; i < g->m; i++) {
        const float * a = g->a + i * g->a_row;
        float       * c = g->c + i * g->c_row;
        for (int64_t j = 0; j < g->n; j += V8_LANES) {
            const int64_t width = min_i64(V8_LANES, g->n - j);
            const float * column[V8_LANES];
            for (int64_t s = 0; s < V8_LANES; s++) { /* columns beyond the edge repeat the last */
                column[s] = g->b + (j + min_i64(s, width - 1)) * g->b_col;
            }
            v8f     sum = g->accumulate ? v8_load_part(c + j, width, 0.0f) : v8_set1(0.0f);
            int64_t p   = 0;
            for (; p + V8_LANES <= g->k; p += V8_LANES) {
                v8f r[V8_LANES];
                for (int s = 0; s < V8_LANES; s++) {
                    r[s] = v8_load(column[s] + p);
                }
                v8_transpose(r);
                for (int s = 0; s < V8_LANES; s++) {
                    sum = v8_fma(v8_set1(a[p + s]), r[s], sum);
                }
            }
            for (; p < g->k; p++) {
                v8f r;
                for (int s = 0; s < V8_LANES; s++) {
                    r[s] = column[s][p];
                }
                sum = v8_fma(v8_set1(a[p]), r, sum);
            }
            if (g->bias != NULL) {
                sum += v8_load_part(g->bias + j, width, 0.0f);
            }
            if (g->add != NULL) {
                sum += v8_load_part(g->add + i * g->c_row + j, width, 0.0f);
            }
            v8_store_part(c + j, width, sum);
        }
    }
}

void tnn__gemm(const struct tnn_gemm * g, void * scratch) {
    if (g->m <= 2 && g->b_row == 1 && g->a_col == 1) {
        few_rows(g);
        return;
    }
    float * const b_block = scratch;
    float * const a_block = b_block + KC * NC;
    float * const spill   = a_block + MC * KC;
    const int64_t k_blocks = (g->k + KC - 1) / KC;
    const int64_t kc_even  = k_blocks > 0 ? (g->k + k_blocks - 1) / k_blocks : 0;
    for (int64_t j0 = 0; j0 < g->n; j0 += NC) {
        const int64_t cols = min_i64(NC, g->n - j0);
        for (int64_t p0 = 0; p0 < g->k; p0 += kc_even) {
            const int64_t kc = min_i64(kc_even, g->k - p0);
            pack_b(g, p0, kc, j0, cols, b_block);
            struct block k = { .g = g, .p0 = p0, .kc = kc, .j0 = j0, .first = p0 == 0, .last = p0 + kc == g->k, .spill = spill };
            for (int64_t i0 = 0; i0 < g->m; i0 += MC) {
                const int64_t rows = min_i64(MC, g->m - i0);
                if (g->a_col != 1) {
                    pack_a(g, i0, rows, p0, kc, a_block);
                }
                for (int64_t j = 0; j < cols; j += NR) {
                    k.packed_b = b_block + j * kc;
                    for (int64_t i = 0; i < rows; i += MR) {
                        k.packed_a = g->a_col != 1 ? a_block + i * kc : NULL;
                        compute_tile(&k, i0 + i, j0 + j);
                    }
                }
            }
        }
    }
}

/* ------------------------------------------------------------------ shares */

static struct tnn_gemm rows_of(const struct tnn_gemm * g, int64_t begin, int64_t end) {
    struct tnn_gemm part = *g;
    part.m   = end - begin;
    part.a  += begin * g->a_row;
    part.c  += begin * g->c_row;
    part.add = g->add != NULL ? g->add + begin * g->c_row : NULL;
    return part;
}

static struct tnn_gemm columns_of(const struct tnn_gemm * g, int64_t begin, int64_t end) {
    struct tnn_gemm part = *g;
    part.n    = end - begin;
    part.b   += begin * g->b_col;
    part.c   += begin;
    part.add  = g->add != NULL ? g->add + begin : NULL;
    part.bias = g->bias != NULL ? g->bias + begin : NULL;
    return part;
}

void tnn__gemm_share(const struct tnn_gemm * g, int ith, int nth, void * scratch) {
    int64_t begin, end;
    /* Cut the longer side: what each thread packs for itself is then the smaller operand. */
    const bool by_rows = g->m > g->n;
    tnn__part(by_rows ? g->m : g->n, by_rows ? MR : NR, ith, nth, &begin, &end);
    if (begin < end) {
        const struct tnn_gemm part = by_rows ? rows_of(g, begin, end) : columns_of(g, begin, end);
        tnn__gemm(&part, scratch);
    }
}
