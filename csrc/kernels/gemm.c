/* kernels/gemm.c - chooses the kernel of a matrix product, and divides a product among threads. */
#include "kernels/gemm.h"

#include "kernels/parts.h"

#include <stdatomic.h>
#include <string.h>

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

void tnn__gemm(const struct tnn_gemm * g, void * scratch) {
    const bool few = g->m <= TNN_FEW_ROWS && g->b_row == 1 && g->a_col == 1 && g->windows == NULL;
    const struct tnn_gemm_kernel * kernel = kernel_in_use();
    (few ? kernel->run_few_rows : kernel->run)(g, scratch);
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
