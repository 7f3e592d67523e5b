/* kernels/few_rows.h - the product of at most TNN_FEW_ROWS rows of A with a matrix B whose columns are contiguous along k, compiled
 * once for each vector width. kernels/gemm.h defines the bits of the result.
 *
 * The file that includes this defines what kernels/stored_panels.h needs, and
 *   vec_load, vec_set1, vec_fma
 *   VECTORS                 the number of vectors of columns that are computed together
 * Everything here is static, so that the linker cannot use code for one instruction set instead of code for another.
 *
 * With few rows, reading the weights takes most of the time. A block of weights is converted and transposed into a panel, which
 * stays in the L1 or L2 cache, and is then multiplied with all rows. A lane is a column of B. VECTORS independent chains hide the
 * latency of a multiply-add.
 */
#include "kernels/gemm.h"
#include "kernels/parts.h"
#include "kernels/stored_panels.h"

#define COLUMNS   (VECTORS * LANES)
#define ALONG_K   128 /* elements along k in a panel, unless a block of B has more */
#define MOST_K    256 /* the largest number of elements in a block of a type of ggml */

/* Adds n products along k to the sums of the columns of the first `vectors` vectors. Each call passes a constant for `vectors`. */
static inline __attribute__((always_inline)) void add_to(const float * a, const float * panel, int64_t n, float * sums, const int vectors) {
    vec sum[VECTORS];
    for (int v = 0; v < vectors; v++) {
        sum[v] = vec_load(sums + v * LANES);
    }
    for (int64_t p = 0; p < n; p++) {
        const vec x = vec_set1(a[p]);
        for (int v = 0; v < vectors; v++) {
            sum[v] = vec_fma(x, vec_load(panel + p * COLUMNS + v * LANES), sum[v]);
        }
    }
    for (int v = 0; v < vectors; v++) {
        vec_store(sums + v * LANES, sum[v]);
    }
}

/* Adds n products along k to the sums of the first `width` columns. The other lanes of the last vector are 0. */
static void add_products(const float * a, const float * panel, int64_t n, float * sums, int64_t width) {
    if (width > COLUMNS - LANES) {
        add_to(a, panel, n, sums, VECTORS);
        return;
    }
    for (int64_t j = 0; j < width; j += LANES) {
        add_to(a, panel + j, n, sums + j, 1);
    }
}

/* Returns the address of column j of B. Writes the bytes of a column to nbytes. */
static const char * column_at(const struct tnn_gemm * g, int64_t j, int64_t * nbytes) {
    if (g->stored.data == NULL) {
        *nbytes = g->b_col * (int64_t) sizeof(float);
        return (const char *) (g->b + j * g->b_col);
    }
    *nbytes = (int64_t) g->stored.row_nbytes;
    return g->stored.data + (g->stored.first + j) * *nbytes;
}

/* Writes the elements from p to p + n of `width` columns of B, from column j on, to a panel. */
static void fill_panel(const struct tnn_gemm * g, int64_t j, int64_t width, int64_t p, int64_t n, float * stage, float * panel,
                       const char * ahead) {
    const struct panel_rows to = { panel, COLUMNS, ahead };
    if (g->stored.data != NULL) {
        fill_stored(&g->stored, g->stored.first + j, width, p, n, stage, to);
        return;
    }
    const float * from = g->b + j * g->b_col + p;
    if (width == LANES) {
        fill_f32((const char *) from, (size_t) g->b_col * sizeof(float), n, to);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        for (int64_t s = 0; s < LANES; s++) {
            panel[i * COLUMNS + s] = s < width ? from[s * g->b_col + i] : 0.0f;
        }
    }
}

static void run_few_rows(const struct tnn_gemm * g, void * scratch) {
    float * const panel = scratch;
    float * const sums  = panel + MOST_K * COLUMNS;
    float * const stage = sums + TNN_FEW_ROWS * COLUMNS;
    const int64_t block = g->stored.data != NULL ? g->stored.block : 1;
    const int64_t most  = block < ALONG_K ? ALONG_K / block * block : block;
    for (int64_t j = 0; j < g->n; j += COLUMNS) {
        const int64_t width = tnn__min(COLUMNS, g->n - j);
        for (int64_t i = 0; i < g->m; i++) {
            float * const sum = sums + i * COLUMNS;
            memset(sum, 0, COLUMNS * sizeof(float));
            if (g->accumulate) {
                memcpy(sum, g->c + i * g->c_row + j, (size_t) width * sizeof(float));
            }
        }
        int64_t nbytes; /* bytes of a column */
        /* During the computation of a block of columns, the next block is prefetched, in the order of its addresses.
         * If the next block is incomplete or does not exist, the same block is prefetched again, so that no address
         * is beyond the end of B. */
        const char * const ahead = column_at(g, j + 2 * width <= g->n ? j + width : j, &nbytes);
        for (int64_t p = 0; p < g->k; p += most) {
            const int64_t n = tnn__min(most, g->k - p);
            for (int64_t v = 0; v < width; v += LANES) {
                const char * const part = ahead + (p * width + n * v) * nbytes / g->k;
                fill_panel(g, j + v, tnn__min(LANES, width - v), p, n, stage, panel + v, part);
            }
            for (int64_t i = 0; i < g->m; i++) {
                add_products(g->a + i * g->a_row + p, panel, n, sums + i * COLUMNS, width);
            }
        }
        for (int64_t i = 0; i < g->m; i++) {
            const float * sum = sums + i * COLUMNS;
            float * const c   = g->c + i * g->c_row + j;
            const float * add = g->add != NULL ? g->add + i * g->c_row + j : NULL;
            for (int64_t s = 0; s < width; s++) {
                float x = sum[s];
                x = g->bias != NULL ? x + g->bias[j + s] : x;
                c[s] = add != NULL ? x + add[s] : x;
            }
        }
    }
}
