/* kernels/gemm_blocks.h - the code of the matrix product, compiled once for each vector width. kernels/gemm.h defines
 * the bits of the result.
 *
 * The file that includes this defines
 *   vec, LANES              a vector of f32 and its lanes: 4, 8 or 16
 *   vec_load, vec_store, vec_set1, vec_fma
 *   VECTORS                 the largest number of vectors in a row of a tile: 2 or 3
 *   MR, ROWS(X)             the largest number of rows of a tile, and X(0) ... X(MR - 1)
 *   KC                      the largest part of k in one packed panel
 *   BF16                    nothing, or defined if the operands are rounded to bfloat16 (kernels/gemm_bf16.h)
 * Everything here is static, so that the linker cannot use code for one instruction set instead of code for another.
 *
 * The scheme is Goto's. B is packed into panels of NR columns, a KC x NC block at a time, and a tile of up to MR x NR
 * elements of C stays in registers during the loop over k. An operand that is small or has a suitable layout is read in
 * place. Unlike in a BLAS, there are no separate partial sums: a tile is stored to C after a block of k, and the next
 * block starts from the stored tile. This fixes the order of the sum.
 */
#include "kernels/gemm.h"
#include "kernels/parts.h"
#include "kernels/vec8.h"

#define NR (VECTORS * LANES)
#define MC TNN_GEMM_MC
#define NC (TNN_GEMM_NC / NR * NR)

#define IN_PLACE_ROWS 64  /* if A has at most this many rows, reading B in place is cheaper than packing it */
/* This number of rows of B stays in L1 if they are read in place. If A is one strip, each row of B is read only once, so B can
 * have more rows. */
#define IN_PLACE_K    128

/* Rows that are divided into n strips of nearly equal heights. Strip s begins at row begin[s] and ends at row begin[s + 1]. */
struct strips {
    int64_t n, begin[MC / MR + 2];
};

static struct strips strips_of(int64_t rows) {
    struct strips strips = { .n = (rows + MR - 1) / MR };
    for (int64_t s = 0; s <= strips.n; s++) {
        strips.begin[s] = rows * s / strips.n;
    }
    return strips;
}

/* ------------------------------------------------------------------ packing */

#ifdef BF16
#include "kernels/gemm_bf16.h"
#else
#include "kernels/gemm_f32.h"
#endif

/* Returns how many elements along k are packed at once: a multiple of K_UNIT and of the block size of a stored B. This
 * number divides k into parts of nearly equal size. */
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
    const float * add;  /* elements that are added to the tile, with row stride c_row; or NULL */
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

/* How the elements of A lie in memory. */
enum layout {
    ALONG_K, /* each row is contiguous */
    DOWN,    /* each column is contiguous */
    STRIPS   /* the columns of the tile follow each other without a gap */
};

/* Computes a tile of rows x (vectors * LANES) elements. packed: the distance of two rows of B is NR. The last four arguments
 * are constants at every call, and the function is inlined, so the compiler removes the code for other values. */
static inline __attribute__((always_inline)) void run_tile(const struct tile * t, const enum layout layout, const bool packed,
                                                           const int rows, const int vectors) {
    const bool    along_k = layout == ALONG_K, two = vectors > 1, three = vectors > 2;
    const int64_t c_row = t->c_row, out_row = t->out_row, b_row = packed ? NR : t->b_row;
    const int64_t a_row = along_k ? t->a_row : 1, a_col = along_k ? 1 : layout == STRIPS ? rows : t->a_col;
    const float * b     = t->b;
    /* an instruction can address row, row + stride and row + 2 * stride, so three rows need one base register */
    const float * a0 = t->a, * a3 = a0 + 3 * a_row, * a6 = a3 + 3 * a_row, * a9 = a6 + 3 * a_row;
#define DECLARE(r) vec lo##r = vec_set1(0.0f), hi##r = lo##r, ex##r = lo##r;
    ROWS(DECLARE)
#undef DECLARE
/* Sets the vectors of row r to expressions. */
#define SET(r, first, second, third) if (r < rows) { lo##r = first; if (two) { hi##r = second; } if (three) { ex##r = third; } }
/* Sets each vector of row r to X(vector, other), where X is a macro and the other vectors are read from p on. */
#define SET_FROM(r, X, p) SET(r, X(lo##r, vec_load(p)), X(hi##r, vec_load((p) + LANES)), X(ex##r, vec_load((p) + 2 * LANES)))
#define LOADED(old, new) (new)
#define SUM(old, new)    (old + new)
#define SUM_TO(old, new) (new + old)
#define HOLD(r) if (r < rows) { KEEP(lo##r) if (two) { KEEP(hi##r) } if (three) { KEEP(ex##r) } }
    if (t->c != NULL) {
        const float * c = t->c;
#define LOAD_C(r) SET_FROM(r, LOADED, c + r * c_row)
        ROWS(LOAD_C)
#undef LOAD_C
    }
    CHAIN_BEGIN
    ROWS(HOLD)
#define STEP(r)                                                                                                              \
    if (r < rows) {                                                                                                          \
        const float * const from = r < 3 ? a0 : r < 6 ? a3 : r < 9 ? a6 : a9;                                                \
        const vec x = vec_set1(from[r % 3 * a_row]);                                                                         \
        SET(r, vec_fma(x, b0, lo##r), vec_fma(x, b1, hi##r), vec_fma(x, b2, ex##r))                                          \
    }
#define STEPS                                                                                                                \
    for (int64_t p = t->steps; p > 0; p--) {                                                                                 \
        const vec b0 = vec_load(b), b1 = two ? vec_load(b + LANES) : b0, b2 = three ? vec_load(b + 2 * LANES) : b0;          \
        (void) b2;                                                                                                           \
        ROWS(STEP)                                                                                                           \
        a0 += a_col;                                                                                                         \
        a3 += a_col;                                                                                                         \
        a6 += a_col;                                                                                                         \
        a9 += a_col;                                                                                                         \
        b  += b_row;                                                                                                         \
    }
    if (rows == MR) { /* most tiles */
        _Pragma("GCC unroll 4")
        STEPS
    } else {
        STEPS
    }
#undef STEPS
#undef STEP
    ROWS(HOLD)
    CHAIN_END
#ifdef CHAIN_FLUSHED
    if (CHAIN_FLUSHED) {
        float sums[MR * NR];
        exact_chain(t, along_k, rows, vectors * LANES, sums);
#define EXACT(r) SET_FROM(r, LOADED, sums + r * NR)
        ROWS(EXACT)
#undef EXACT
    }
#endif
    if (along_k && t->bias != NULL) { /* if A is read down its columns, cut_tile adds `bias` and `add` instead */
        const float * bias = t->bias;
#define BIAS(r) SET_FROM(r, SUM, bias)
        ROWS(BIAS)
#undef BIAS
    }
    if (along_k && t->add != NULL) {
        const float * add = t->add;
#define ADD(r) SET_FROM(r, SUM, add + r * c_row)
        ROWS(ADD)
#undef ADD
    }
    for (int i = 0; i < t->n_nodes; i++) {
        const float * node = t->nodes[i].p;
        const int64_t row  = t->nodes[i].row;
#define NODE(r) SET_FROM(r, SUM_TO, node + r * row)
        ROWS(NODE)
#undef NODE
    }
    float * out = t->out;
#define STORE(r)                                                                                                             \
    if (r < rows) {                                                                                                          \
        vec_store(out + r * out_row, lo##r);                                                                                 \
        if (two) { vec_store(out + r * out_row + LANES, hi##r); }                                                            \
        if (three) { vec_store(out + r * out_row + 2 * LANES, ex##r); }                                                      \
    }
    ROWS(STORE)
#undef STORE
#undef SET
#undef SET_FROM
#undef LOADED
#undef SUM
#undef SUM_TO
}

/* Passes each width of a tile, in vectors, to the macro X. */
#if VECTORS == 3
#define WIDTHS(X, ...) X(1, __VA_ARGS__) X(2, __VA_ARGS__) X(3, __VA_ARGS__)
#else
#define WIDTHS(X, ...) X(1, __VA_ARGS__) X(2, __VA_ARGS__)
#endif

/* Defines a function for each height and width of a tile, each layout of A, and for packed and other B. */
#define FUNCTION(vectors, r, layout, packed)                                               \
    static void tile_##r##_##vectors##_##layout##_##packed(const struct tile * t) {        \
        run_tile(t, layout, packed, r + 1, vectors);                                       \
    }
#define FUNCTIONS(r)                                                                                                        \
    WIDTHS(FUNCTION, r, ALONG_K, 0) WIDTHS(FUNCTION, r, DOWN, 0) WIDTHS(FUNCTION, r, STRIPS, 0)                             \
    WIDTHS(FUNCTION, r, ALONG_K, 1) WIDTHS(FUNCTION, r, DOWN, 1) WIDTHS(FUNCTION, r, STRIPS, 1)
ROWS(FUNCTIONS)
#undef FUNCTIONS
#undef FUNCTION

typedef void (*tile_function)(const struct tile *);

static const tile_function TILE[MR][2][3][VECTORS] = { /* [height - 1][packed][layout][vectors - 1] */
#define NAME(vectors, r, layout, packed) tile_##r##_##vectors##_##layout##_##packed,
#define NAMES(r)                                                                                                            \
    { { { WIDTHS(NAME, r, ALONG_K, 0) }, { WIDTHS(NAME, r, DOWN, 0) }, { WIDTHS(NAME, r, STRIPS, 0) } },                    \
      { { WIDTHS(NAME, r, ALONG_K, 1) }, { WIDTHS(NAME, r, DOWN, 1) }, { WIDTHS(NAME, r, STRIPS, 1) } } },
    ROWS(NAMES)
#undef NAMES
#undef NAME
};

/* Returns the function that computes a tile of height x width elements. */
static inline tile_function function_of(const struct tile * t, bool along_k, int64_t height, int64_t width) {
    const enum layout layout = along_k ? ALONG_K : t->a_col == height ? STRIPS : DOWN;
    return TILE[height - 1][t->b_row == NR][layout][(width - 1) / LANES];
}

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
    function_of(&whole, along_k, height, width)(&whole);
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
    const bool    stored  = g->stored.data != NULL, panels = g->panels.data != NULL;
    const int64_t kc_even = part_of_k(g);
    const bool    along_k  = g->a_col == 1;
    const bool    pack_a   = !along_k && (K_UNIT > 1 || g->k > IN_PLACE_K || (g->n > NR && rows_collide(g->a_col)));
    const bool    copy_a   = along_k && (K_UNIT > 1 || (g->n > 2 * NR && rows_collide(g->a_row)));
    const bool    pack_b   = K_UNIT > 1 || stored || panels || g->b_col != 1 || g->m > IN_PLACE_ROWS || (g->k > IN_PLACE_K && g->m > MR);
    for (int64_t j0 = 0; j0 < g->n; j0 += NC) {
        const int64_t cols = tnn__min(NC, g->n - j0);
        for (int64_t p0 = 0; p0 < g->k; p0 += kc_even) {
            const int64_t kc   = tnn__min(kc_even, g->k - p0), steps = steps_of(kc);
            const bool    last = p0 + kc == g->k, goes_on = g->accumulate || p0 > 0;
            const float * b    = stored || panels ? NULL : g->b + p0 * g->b_row + j0 * g->b_col;
            const float * const packed_b = panels ? g->panels.data + j0 * steps : b_block;
            if (stored) {
                pack_stored(&g->stored, p0, kc, j0, cols, stage, b_block);
            }
            /* A panel at the edge is always packed, because reading it in place would read beyond the end of its
             * rows. */
            for (int64_t j = 0; j < cols && !stored && !panels; j += NR) {
                const int64_t width = tnn__min(NR, cols - j);
                if (pack_b || width % LANES != 0) {
                    pack_panel(b + j * g->b_col, g->b_row, g->b_col, kc, 1, width, b_block + j * steps);
                }
            }
            for (int64_t i0 = 0; i0 < g->m; i0 += MC) {
                const int64_t rows = tnn__min(MC, g->m - i0);
                const struct strips strips = strips_of(rows);
                if (pack_a) {
                    pack_columns(g->a + i0 + p0 * g->a_col, g->a_col, kc, 1, &strips, a_block);
                } else if (copy_a) {
                    copy_rows(g->a + (i0 * g->a_row) + p0, g->a_row, kc, rows, a_block);
                }
                for (int64_t j = 0; j < cols; j += NR) {
                    const int64_t width  = tnn__min(NR, cols - j);
                    const bool    packed = pack_b || width % LANES != 0;
                    struct tile t = {
                        .steps = steps, .a_row = g->a_row, .a_col = g->a_col, .c_row = g->c_row, .out_row = g->c_row,
                        .b = packed ? packed_b + j * steps : b + j, .b_row = packed ? NR : g->b_row,
                        .bias = last && g->bias != NULL ? g->bias + j0 + j : NULL,
                    };
                    for (int64_t s = 0; s < strips.n; s++) {
                        const int64_t i = strips.begin[s], height = strips.begin[s + 1] - i;
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
                            function_of(&t, along_k, height, width)(&t);
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
