/* kernels/gemm.c - chooses the kernels for the instruction set of the CPU, and divides a matrix product among threads. */
#include "kernels/gemm.h"

#include "kernels/parts.h"
#include "kernels/row_loops.h"

#include <stdatomic.h>
#include <string.h>

size_t tnn__gemm_windows_scratch(int64_t m, int64_t n, int64_t windows) {
    const int64_t slots = tnn__local_slots(windows, false) + 1;
    return tnn__gemm_scratch() + sizeof(float) * (size_t) tnn__min(TNN_GEMM_NODES, slots * (m + TNN_GEMM_ROWS) * (n + TNN_GEMM_COLUMNS));
}

/* ------------------------------------------------------------------ the kernels */

/* The kernels of one instruction set. */
struct kernels {
    const char                   * name;
    const struct tnn_gemm_kernel * f32, * bf16; /* for products of f32 and of bfloat16 operands */
    const struct tnn_row_loops   * row_loops;
};

static const struct kernels V8 = { "v8", &tnn__gemm_v8, &tnn__gemm_bf16_v8, &tnn__row_loops_v8 };
#if defined(TNN_GEMM_AVX512)
static const struct kernels AVX512      = { "avx512", &tnn__gemm_avx512, &tnn__gemm_bf16_avx512, &tnn__row_loops_avx512 };
static const struct kernels AVX512_BF16 = { "avx512_bf16", &tnn__gemm_avx512, &tnn__gemm_bf16_pairs, &tnn__row_loops_avx512 };
#elif defined(TNN_GEMM_NEON)
static const struct kernels NEON = { "neon", &tnn__gemm_neon, &tnn__gemm_bf16_neon, &tnn__row_loops_v8 };
#endif

/* The kernels that this CPU can run, the fastest first. */
static const struct kernels * kernels_at(int i) {
    const struct kernels * kernels[3];
    int n = 0;
#if defined(TNN_GEMM_AVX512)
    /* On an AMD CPU, vdpbf16ps computes 1.94 times as many multiply-adds in a second as an f32 FMA. On an Intel CPU
     * with AMX, vdpbf16ps computes only 0.5 times as many. */
    const bool has_bf16 = tnn__cpu_has_avx512_bf16(), bf16_is_fast = tnn__cpu_is_amd();
    if (has_bf16 && bf16_is_fast) {
        kernels[n++] = &AVX512_BF16;
    }
    if (tnn__cpu_has_avx512()) {
        kernels[n++] = &AVX512;
    }
    if (has_bf16 && !bf16_is_fast) {
        kernels[n++] = &AVX512_BF16;
    }
#elif defined(TNN_GEMM_NEON)
    kernels[n++] = &NEON;
#endif
    kernels[n++] = &V8;
    return i < n ? kernels[i] : NULL;
}

static _Atomic(const struct kernels *) in_use; /* NULL until the kernels are chosen */

static const struct kernels * kernels_in_use(void) {
    const struct kernels * kernels = atomic_load_explicit(&in_use, memory_order_relaxed);
    if (kernels == NULL) {
        kernels = kernels_at(0);
        atomic_store_explicit(&in_use, kernels, memory_order_relaxed);
    }
    return kernels;
}

const struct tnn_row_loops * tnn__row_loops(void) {
    return kernels_in_use()->row_loops;
}

/* Returns the kernel that computes g. */
static const struct tnn_gemm_kernel * kernel_of(const struct tnn_gemm * g) {
    return g->bf16 ? kernels_in_use()->bf16 : kernels_in_use()->f32;
}

const char * tnn_gemm_kernel(void) {
    return kernels_in_use()->name;
}

const char * tnn_gemm_kernel_at(int32_t i) {
    const struct kernels * kernels = i >= 0 ? kernels_at(i) : NULL;
    return kernels != NULL ? kernels->name : NULL;
}

int tnn_gemm_use_kernel(const char * name) {
    const struct kernels * kernels;
    for (int i = 0; name != NULL && (kernels = kernels_at(i)) != NULL; i++) {
        if (strcmp(kernels->name, name) == 0) {
            atomic_store_explicit(&in_use, kernels, memory_order_relaxed);
            return TNN_OK;
        }
    }
    return TNN_E_VALUE;
}

void tnn__gemm(const struct tnn_gemm * g, void * scratch) {
    const bool panels = g->panels.data != NULL;
    const struct tnn_gemm_kernel * kernel = panels ? g->panels.kernel : kernel_of(g);
    const bool few = g->m <= TNN_FEW_ROWS && kernel->run_few_rows != NULL && !panels && g->b_row == 1 && g->a_col == 1 && g->windows == NULL;
    (few ? kernel->run_few_rows : kernel->run)(g, scratch);
}

struct tnn_panels tnn__gemm_pack(const struct tnn_gemm * g, float * data) {
    const struct tnn_gemm_kernel * kernel = kernels_in_use()->f32;
    kernel->pack(g, data);
    return (struct tnn_panels) { .data = data, .kernel = kernel };
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
    const struct tnn_gemm_kernel * kernel = kernel_of(g);
    int64_t begin, end;
    /* Divides the longer side of C among the threads, so that each thread packs the smaller operand. */
    const bool by_rows = g->m > g->n;
    tnn__part(by_rows ? g->m : g->n, by_rows ? kernel->rows : kernel->columns, ith, nth, &begin, &end);
    if (begin < end) {
        const struct tnn_gemm part = by_rows ? rows_of(g, begin, end) : columns_of(g, begin, end);
        tnn__gemm(&part, scratch);
    }
}
