/* kernels/gemm.c - chooses the kernel of a matrix product, computes products of one or two rows, and divides a product
 * among threads. */
#include "kernels/gemm.h"

#include "kernels/parts.h"
#include "kernels/vec8.h"

#include <stdatomic.h>

size_t tnn__gemm_windows_scratch(int64_t m, int64_t n, int64_t windows) {
    const int64_t slots = tnn__local_slots(windows, false) + 1;
    return tnn__gemm_scratch() + sizeof(float) * (size_t) tnn__min(TNN_GEMM_NODES, slots * (m + TNN_GEMM_ROWS) * (n + TNN_GEMM_COLUMNS));
}

/* ------------------------------------------------------------------ the kernels */

/* The kernels that this CPU can run, the fastest first. */
static const struct tnn_gemm_kernel * kernel_at(int i) {
    const struct tnn_gemm_kernel * kernels[2];
    int n = 0;
#if defined(TNN_GEMM_AVX512)
    if (tnn__cpu_has_avx512()) {
        kernels[n++] = &tnn__gemm_avx512;
    }
#elif defined(TNN_GEMM_NEON)
    kernels[n++] = &tnn__gemm_neon;
#endif
    kernels[n++] = &tnn__gemm_v8;
    return i < n ? kernels[i] : NULL;
}

static _Atomic(const struct tnn_gemm_kernel *) in_use; /* NULL until the kernel is chosen */

static const struct tnn_gemm_kernel * kernel_in_use(void) {
    const struct tnn_gemm_kernel * kernel = atomic_load_explicit(&in_use, memory_order_relaxed);
    if (kernel == NULL) {
        kernel = kernel_at(0);
        atomic_store_explicit(&in_use, kernel, memory_order_relaxed);
    }
    return kernel;
}

const char * tnn_gemm_kernel(void) {
    return kernel_in_use()->name;
}

const char * tnn_gemm_kernel_at(int32_t i) {
    const struct tnn_gemm_kernel * kernel = i >= 0 ? kernel_at(i) : NULL;
    return kernel != NULL ? kernel->name : NULL;
}

int tnn_gemm_use_kernel(const char * name) {
    const struct tnn_gemm_kernel * kernel;
    for (int i = 0; name != NULL && (kernel = kernel_at(i)) != NULL; i++) {
        if (strcmp(kernel->name, name) == 0) {
            atomic_store_explicit(&in_use, kernel, memory_order_relaxed);
            return TNN_OK;
        }
    }
    return TNN_E_VALUE;
}

/* ------------------------------------------------------------------ products with one or two rows */

/* Adds n products along k to the sums of eight columns of B. Each column is contiguous. The products are added in the
 * order of gemm_blocks.h. */
static v8f go_on(v8f sum, const float * a, const float * const column[V8_LANES], int64_t n) {
    int64_t p = 0;
    for (; p + V8_LANES <= n; p += V8_LANES) {
        v8f r[V8_LANES];
        for (int s = 0; s < V8_LANES; s++) {
            r[s] = v8_load(column[s] + p);
        }
        v8_transpose(r);
        for (int s = 0; s < V8_LANES; s++) {
            sum = v8_fma(v8_set1(a[p + s]), r[s], sum);
        }
    }
    for (; p < n; p++) {
        v8f r;
        for (int s = 0; s < V8_LANES; s++) {
            r[s] = column[s][p];
        }
        sum = v8_fma(v8_set1(a[p]), r, sum);
    }
    return sum;
}

static v8f start(const struct tnn_gemm * g, int64_t i, int64_t j, int64_t width) {
    return g->accumulate ? v8_load_part(g->c + i * g->c_row + j, width, 0.0f) : v8_set1(0.0f);
}

static void finish(const struct tnn_gemm * g, int64_t i, int64_t j, int64_t width, v8f sum) {
    if (g->bias != NULL) {
        sum += v8_load_part(g->bias + j, width, 0.0f);
    }
    if (g->add != NULL) {
        sum += v8_load_part(g->add + i * g->c_row + j, width, 0.0f);
    }
    v8_store_part(g->c + i * g->c_row + j, width, sum);
}

/* Computes y = B^T x for each row x of A, if the columns of B are contiguous along k. Nothing is packed, and each
 * weight is read once per row. Eight columns are computed together. */
static void few_rows(const struct tnn_gemm * g) {
    for (int64_t i = 0; i < g->m; i++) {
        for (int64_t j = 0; j < g->n; j += V8_LANES) {
            const int64_t width = tnn__min(V8_LANES, g->n - j);
            const float * column[V8_LANES];
            for (int64_t s = 0; s < V8_LANES; s++) { /* lanes beyond the last column compute the last column again */
                column[s] = g->b + (j + tnn__min(s, width - 1)) * g->b_col;
            }
            finish(g, i, j, width, go_on(start(g, i, j, width), g->a + i * g->a_row, column, g->k));
        }
    }
}

/* Computes the result of few_rows for a stored matrix B. Each weight is converted once for all rows. */
static void few_rows_stored(const struct tnn_gemm * g, float * stage) {
    const struct tnn_stored * w    = &g->stored;
    const int64_t             most = TNN_GEMM_KC / w->block * w->block;
    for (int64_t j = 0; j < g->n; j += V8_LANES) {
        const int64_t width = tnn__min(V8_LANES, g->n - j);
        v8f           sum[2];
        for (int64_t i = 0; i < g->m; i++) {
            sum[i] = start(g, i, j, width);
        }
        for (int64_t p = 0; p < g->k; p += most) {
            const int64_t n = tnn__min(most, g->k - p);
            const float * column[V8_LANES];
            for (int64_t s = 0; s < V8_LANES; s++) {
                column[s] = s < width ? tnn__stored_row(w, w->first + j + s, p, n, stage + s * most) : column[width - 1];
            }
            for (int64_t i = 0; i < g->m; i++) {
                sum[i] = go_on(sum[i], g->a + i * g->a_row + p, column, n);
            }
        }
        for (int64_t i = 0; i < g->m; i++) {
            finish(g, i, j, width, sum[i]);
        }
    }
}

void tnn__gemm(const struct tnn_gemm * g, void * scratch) {
    const bool few = g->m <= 2 && g->b_row == 1 && g->a_col == 1 && g->windows == NULL;
    if (few && g->stored.data != NULL) {
        few_rows_stored(g, scratch);
    } else if (few) {
        few_rows(g);
    } else {
        kernel_in_use()->run(g, scratch);
    }
}

/* ------------------------------------------------------------------ shares */

static struct tnn_gemm rows_of(const struct tnn_gemm * g, int64_t begin, int64_t end) {
    struct tnn_gemm part = *g;
    part.m   = end - begin;
    part.a  += begin * g->a_row;
    part.c  += begin * g->c_row;
    part.add = g->add != NULL ? g->add + begin * g->c_row : NULL;
    part.stored_at  += (size_t) (begin * g->c_row);
    part.between_at += (size_t) (begin * g->c_row);
    return part;
}

static struct tnn_gemm columns_of(const struct tnn_gemm * g, int64_t begin, int64_t end) {
    struct tnn_gemm part = *g;
    part.n    = end - begin;
    if (g->stored.data != NULL) {
        part.stored.first += begin;
    } else {
        part.b += begin * g->b_col;
    }
    part.c   += begin;
    part.add  = g->add != NULL ? g->add + begin : NULL;
    part.bias = g->bias != NULL ? g->bias + begin : NULL;
    part.stored_at  += (size_t) begin;
    part.between_at += (size_t) begin;
    return part;
}

void tnn__gemm_share(const struct tnn_gemm * g, int ith, int nth, void * scratch) {
    const struct tnn_gemm_kernel * kernel = kernel_in_use();
    int64_t begin, end;
    /* Divides the longer side of C among the threads, so that each thread packs the smaller operand. */
    const bool by_rows = g->m > g->n;
    tnn__part(by_rows ? g->m : g->n, by_rows ? kernel->rows : kernel->columns, ith, nth, &begin, &end);
    if (begin < end) {
        const struct tnn_gemm part = by_rows ? rows_of(g, begin, end) : columns_of(g, begin, end);
        tnn__gemm(&part, scratch);
    }
}
