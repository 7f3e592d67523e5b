/* kernels/gemm_blocks.h - the code of the matrix product, compiled once for each vector width. kernels/gemm.h defines
 * the bits of the result.
 *
 * The file that includes this defines
 *   vec, LANES              a vector of f32 and its lanes: 4, 8 or 16
 *   vec_load, vec_store, vec_set1, vec_fma
 *   MR, ROWS(X)             the largest number of rows of a tile, and X(0) ... X(MR - 1)
 *   KC                      the largest part of k in one packed panel
 *   BF16                    nothing, or defined if the operands are rounded to bfloat16 (kernels/gemm_bf16.h)
 * Everything here is static, so that the linker cannot use code for one instruction set instead of code for another.
 *
 * The scheme is Goto's. B is packed into panels of NR columns, a KC x NC block at a time, and a tile of up to MR x NR
 * elements of C stays in registers during the loop over k. An operand that is small or has a suitable layout is read in
 * place. Unlike in a BLAS, there are no separate partial sums: a tile is stored to C after a block of k, and the next
 * block starts from it, which fixes the order of the sum.
 */
#include "kernels/gemm.h"
#include "kernels/parts.h"
#include "kernels/vec8.h"

#define NR (2 * LANES)
#define MC TNN_GEMM_MC
#define NC TNN_GEMM_NC

#define IN_PLACE_ROWS 64  /* if A has at most this many rows, reading B in place is cheaper than packing it */
#define IN_PLACE_K    128 /* rows that stay in L1 if they are read in place; B may have more if A is one strip, which reads a row once */

/* Returns the first row of strip s, if the rows are divided into strips of nearly equal heights. */
static inline int64_t strip_begin(int64_t rows, int64_t strips, int64_t s) {
    return rows * s / strips;
}

/* ------------------------------------------------------------------ packing */

#ifdef BF16
#include "kernels/gemm_bf16.h"
#else
#define K_UNIT 1 /* number of neighbouring elements along k that stay together */
#define CHAIN_BEGIN
#define CHAIN_END
#define HOLD(r)

/* Returns the number of elements of a panel's column that hold kc elements along k. */
static inline int64_t steps_of(int64_t kc) {
    return kc;
}

/* Packs a panel, out [windows * kc][NR]: kc elements for each window, of each of width <= NR columns of B. Columns of the
 * panel beyond width are 0. */
static void pack_panel(const float * b, int64_t b_row, int64_t b_col, int64_t kc, int64_t windows, int64_t width, float * out) {
    kc *= windows;
    if (b_col == 1) {
        if (width == NR) {
            for (int64_t p = 0; p < kc; p++) {
                vec_store(out + p * NR, vec_load(b + p * b_row));
                vec_store(out + p * NR + LANES, vec_load(b + p * b_row + LANES));
            }
        } else {
            for (int64_t p = 0; p < kc; p++) {
                memset(out + p * NR, 0, NR * sizeof(float));
                memcpy(out + p * NR, b + p * b_row, (size_t) width * sizeof(float));
            }
        }
        return;
    }
    /* columns are contiguous along k: blocks of 8 x 8 are transposed */
    const int64_t whole = kc / V8_LANES * V8_LANES;
    int64_t j = 0;
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
static void pack_columns(const float * a, int64_t a_col, int64_t kc, int64_t windows, int64_t rows, int64_t strips, float * out) {
    kc *= windows;
    for (int64_t p = 0; p < kc; p++, a += a_col) {
        for (int64_t s = 0, i = 0; s < strips; s++) {
            const int64_t end = strip_begin(rows, strips, s + 1), height = end - i;
            if (height == MR) {
                memcpy(out + i * kc + p * MR, a + i, MR * sizeof(float));
            } else {
                for (int64_t r = 0; r < height; r++) {
                    out[i * kc + p * height + r] = a[i + r];
                }
            }
            i = end;
        }
    }
}

/* Copies kc elements of each row of A, which is contiguous along k, to rows of kc + TNN_GEMM_PAD elements. */
static void copy_rows(const float * a, int64_t a_row, int64_t kc, int64_t rows, float * out) {
    for (int64_t i = 0; i < rows; i++) {
        memcpy(out + i * (kc + TNN_GEMM_PAD), a + i * a_row, (size_t) kc * sizeof(float));
    }
}

#endif

/* Returns how many elements along k are packed at once, so that the parts are nearly equal and consist of whole blocks
 * of a stored B, and of K_UNIT elements. */
static int64_t part_of_k(const struct tnn_gemm * g) {
    const int64_t block = g->stored.data != NULL && g->stored.transposed && g->stored.block > 1 ? g->stored.block : K_UNIT;
    const int64_t most  = KC / block * block, parts = (g->k + most - 1) / most;
    const int64_t even  = (g->k + parts - 1) / parts;
    return (even + block - 1) / block * block;
}

/* Returns whether rows at this distance evict each other from L1. If the distance is a multiple of a page, all rows use
 * the same cache set, which holds only a few of them. */
static bool rows_collide(int64_t a_row) {
    const int64_t bytes = a_row * (int64_t) sizeof(float) % 4096;
    return bytes < 64 || bytes > 4096 - 64;
}

/* ------------------------------------------------------------------ the micro-kernel */

/* The rows of a tile in memory. */
struct tile_rows {
    float * p;
    int64_t row; /* row stride */
};

/* The operands of a tile. A's element (r, p) is a[r*a_row + p*a_col], and one of the two strides is 1; row p of the panel starts at
 * b + p*b_row. The sums start from c (NULL: from 0), and the results go to out. */
struct tile {
    int64_t       steps; /* elements of a packed column; for f32, elements along k */
    const float * a;
    int64_t       a_row, a_col;
    const float * b;
    int64_t       b_row;
    const float * c;
    int64_t       c_row;
    const float * bias; /* or NULL */
    const float * add;  /* row stride c_row, or NULL */
    const struct tile_rows * nodes; /* n_nodes tiles, added one after the other (kernels/gemm_windows.h) */
    int           n_nodes;
    float       * out;
    int64_t       out_row;
};

#ifdef CHAIN_FLUSHED
/* Computes the sums of a tile again, one operation at a time: out [rows][NR]. */
static __attribute__((noinline)) void exact_chain(const struct tile * t, bool along_k, int rows, int columns, float * out) {
    for (int r = 0; r < rows; r++) {
        const float * a = t->a + r * (along_k ? t->a_row : 1);
        for (int j = 0; j < columns; j++) {
            float sum = t->c != NULL ? t->c[r * t->c_row + j] : 0.0f;
            for (int64_t p = 0; p < t->steps; p++) {
                sum = bf16_fma(a[p * (along_k ? 1 : t->a_col)], t->b[p * t->b_row + j], sum);
            }
            out[r * NR + j] = sum;
        }
    }
}
#endif

/* Computes a tile of rows x (vectors * LANES) elements. The last three arguments are constants at every call, and the
 * function is inlined, so the compiler removes the code for other values. */
static inline __attribute__((always_inline)) void run_tile(const struct tile * t, const bool along_k, const int rows, const int vectors) {
    const bool    two   = vectors > 1;
    const int64_t c_row = t->c_row, out_row = t->out_row, b_row = t->b_row;
    const int64_t a_row = along_k ? t->a_row : 1, a_col = along_k ? 1 : t->a_col;
    const float * b     = t->b;
    /* an instruction can address row, row + stride and row + 2 * stride, so three rows need one base register */
    const float * a0 = t->a, * a3 = a0 + 3 * a_row, * a6 = a3 + 3 * a_row, * a9 = a6 + 3 * a_row;
#define DECLARE(r) vec lo##r = vec_set1(0.0f), hi##r = lo##r;
    ROWS(DECLARE)
#undef DECLARE
    if (t->c != NULL) {
        const float * c = t->c;
#define LOAD(r) if (r < rows) { lo##r = vec_load(c + r * c_row); if (two) { hi##r = vec_load(c + r * c_row + LANES); } }
        ROWS(LOAD)
#undef LOAD
    }
    CHAIN_BEGIN
    ROWS(HOLD)
    for (int64_t p = t->steps; p > 0; p--) {
        const vec b0 = vec_load(b), b1 = two ? vec_load(b + LANES) : b0;
#define STEP(r)                                                                                                              \
        if (r < rows) {                                                                                                      \
            const float * const from = r < 3 ? a0 : r < 6 ? a3 : r < 9 ? a6 : a9;                                            \
            const vec x = vec_set1(from[r % 3 * a_row]);                                                                     \
            lo##r = vec_fma(x, b0, lo##r);                                                                                   \
            if (two) { hi##r = vec_fma(x, b1, hi##r); }                                                                      \
        }
        ROWS(STEP)
#undef STEP
        a0 += a_col;
        a3 += a_col;
        a6 += a_col;
        a9 += a_col;
        b  += b_row;
    }
    ROWS(HOLD)
    CHAIN_END
#ifdef CHAIN_FLUSHED
    if (CHAIN_FLUSHED) {
        float sums[MR * NR];
        exact_chain(t, along_k, rows, vectors * LANES, sums);
#define EXACT(r) if (r < rows) { lo##r = vec_load(sums + r * NR); if (two) { hi##r = vec_load(sums + r * NR + LANES); } }
        ROWS(EXACT)
#undef EXACT
    }
#endif
    if (along_k && t->bias != NULL) { /* if A is read down its columns, cut_tile adds `bias` and `add` instead */
        const vec b0 = vec_load(t->bias), b1 = two ? vec_load(t->bias + LANES) : b0;
#define BIAS(r) if (r < rows) { lo##r += b0; if (two) { hi##r += b1; } }
        ROWS(BIAS)
#undef BIAS
    }
    if (along_k && t->add != NULL) {
        const float * add = t->add;
#define ADD(r) if (r < rows) { lo##r += vec_load(add + r * c_row); if (two) { hi##r += vec_load(add + r * c_row + LANES); } }
        ROWS(ADD)
#undef ADD
    }
    for (int i = 0; i < t->n_nodes; i++) {
        const float * node = t->nodes[i].p;
        const int64_t row  = t->nodes[i].row;
#define NODE(r) if (r < rows) { lo##r = vec_load(node + r * row) + lo##r; if (two) { hi##r = vec_load(node + r * row + LANES) + hi##r; } }
        ROWS(NODE)
#undef NODE
    }
    float * out = t->out;
#define STORE(r) if (r < rows) { vec_store(out + r * out_row, lo##r); if (two) { vec_store(out + r * out_row + LANES, hi##r); } }
    ROWS(STORE)
#undef STORE
}

/* Defines a function for each height and width of a tile, for A that is read along k and for A that is read down its columns. */
#define TILES(r)                                                                             \
    static void along_##r##_1(const struct tile * t) { run_tile(t, true, r + 1, 1); }        \
    static void along_##r##_2(const struct tile * t) { run_tile(t, true, r + 1, 2); }        \
    static void down_##r##_1(const struct tile * t) { run_tile(t, false, r + 1, 1); }        \
    static void down_##r##_2(const struct tile * t) { run_tile(t, false, r + 1, 2); }
ROWS(TILES)
#undef TILES

/* The functions run_tile: TILE[A is read along k][height - 1][vectors - 1]. */
static void (*const TILE[2][MR][2])(const struct tile *) = {
#define DOWN(r) { down_##r##_1, down_##r##_2 },
    { ROWS(DOWN) },
#undef DOWN
#define ALONG(r) { along_##r##_1, along_##r##_2 },
    { ROWS(ALONG) },
#undef ALONG
};

/* ------------------------------------------------------------------ blocks */

/* Computes a tile of height x width elements that run_tile cannot write directly, by first writing it to spill. */
static void cut_tile(const struct tile * t, bool along_k, int64_t height, int64_t width, float * spill) {
    struct tile whole = *t;
    if (t->c != NULL) {
        for (int64_t r = 0; r < height; r++) {
            memcpy(spill + r * NR, t->c + r * t->c_row, (size_t) width * sizeof(float));
        }
        whole.c     = spill;
        whole.c_row = NR;
    }
    whole.bias    = NULL;
    whole.add     = NULL;
    whole.out     = spill;
    whole.out_row = NR;
    TILE[along_k][height - 1][width > LANES](&whole);
    for (int64_t r = 0; r < height; r++) {
        for (int64_t s = 0; s < width; s++) {
            float x = spill[r * NR + s];
            x = t->bias != NULL ? x + t->bias[s] : x;
            x = t->add != NULL ? x + t->add[r * t->c_row + s] : x;
            t->out[r * t->out_row + s] = x;
        }
    }
}

static void run_chains(const struct tnn_gemm * g, void * scratch) {
    float * const b_block = scratch;
    float * const a_block = b_block + TNN_GEMM_KC * NC;
    float * const spill   = a_block + MC * (TNN_GEMM_KC + TNN_GEMM_PAD);
    float * const stage   = spill + TNN_GEMM_TILE;
    const bool    stored  = g->stored.data != NULL;
    const int64_t kc_even = part_of_k(g);
    const bool    along_k  = g->a_col == 1;
    const bool    pack_a   = !along_k && (K_UNIT > 1 || g->k > IN_PLACE_K || (g->n > NR && rows_collide(g->a_col)));
    const bool    copy_a   = along_k && (K_UNIT > 1 || (g->n > 2 * NR && rows_collide(g->a_row)));
    const bool    pack_b   = K_UNIT > 1 || stored || g->b_col != 1 || g->m > IN_PLACE_ROWS || (g->k > IN_PLACE_K && g->m > MR);
    for (int64_t j0 = 0; j0 < g->n; j0 += NC) {
        const int64_t cols = tnn__min(NC, g->n - j0);
        for (int64_t p0 = 0; p0 < g->k; p0 += kc_even) {
            const int64_t kc   = tnn__min(kc_even, g->k - p0), steps = steps_of(kc);
            const bool    last = p0 + kc == g->k, goes_on = g->accumulate || p0 > 0;
            const float * b    = stored ? NULL : g->b + p0 * g->b_row + j0 * g->b_col;
            if (stored) {
                pack_stored(&g->stored, p0, kc, j0, cols, stage, b_block);
            }
            /* A panel at the edge is always packed, because reading it in place would read beyond the end of its
             * rows. */
            for (int64_t j = 0; j < cols && !stored; j += NR) {
                const int64_t width = tnn__min(NR, cols - j);
                if (pack_b || width % LANES != 0) {
                    pack_panel(b + j * g->b_col, g->b_row, g->b_col, kc, 1, width, b_block + j * steps);
                }
            }
            for (int64_t i0 = 0; i0 < g->m; i0 += MC) {
                const int64_t rows   = tnn__min(MC, g->m - i0);
                const int64_t strips = (rows + MR - 1) / MR; /* the strips have nearly equal heights */
                if (pack_a) {
                    pack_columns(g->a + i0 + p0 * g->a_col, g->a_col, kc, 1, rows, strips, a_block);
                } else if (copy_a) {
                    copy_rows(g->a + (i0 * g->a_row) + p0, g->a_row, kc, rows, a_block);
                }
                for (int64_t j = 0; j < cols; j += NR) {
                    const int64_t width  = tnn__min(NR, cols - j);
                    const bool    packed = pack_b || width % LANES != 0;
                    struct tile t = {
                        .steps = steps, .a_row = g->a_row, .a_col = g->a_col, .c_row = g->c_row, .out_row = g->c_row,
                        .b = packed ? b_block + j * steps : b + j, .b_row = packed ? NR : g->b_row,
                        .bias = last && g->bias != NULL ? g->bias + j0 + j : NULL,
                    };
                    for (int64_t s = 0; s < strips; s++) {
                        const int64_t i = strip_begin(rows, strips, s), height = strip_begin(rows, strips, s + 1) - i;
                        const int64_t at = (i0 + i) * g->c_row + j0 + j;
                        t.a   = g->a + (i0 + i) * g->a_row + p0 * g->a_col;
                        if (pack_a) {
                            t.a     = a_block + i * steps;
                            t.a_col = height;
                        } else if (copy_a) {
                            t.a     = a_block + i * (steps + TNN_GEMM_PAD);
                            t.a_row = steps + TNN_GEMM_PAD;
                        }
                        t.out = g->c + at;
                        t.c   = goes_on ? t.out : NULL;
                        t.add = last && g->add != NULL ? g->add + at : NULL;
                        if (width % LANES != 0 || (!along_k && (t.bias != NULL || t.add != NULL))) {
                            cut_tile(&t, along_k, height, width, spill);
                        } else {
                            TILE[along_k][height - 1][width > LANES](&t);
                        }
                    }
                }
            }
        }
    }
}

#include "kernels/gemm_windows.h"

static void run(const struct tnn_gemm * g, void * scratch) {
    if (g->windows != NULL) {
        run_windows(g, scratch);
    } else {
        run_chains(g, scratch);
    }
}
