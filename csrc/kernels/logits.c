/* kernels/logits.c - the logits of some rows, x W^T, and their gradients.
 *
 * A node of LINEAR computes all rows, but a node of this kernel computes the logits of a few rows. Later nodes reuse the memory of the
 * logits for the next rows. The bits are those of LINEAR: the gradient of W has the same order of sums.
 */
#include "kernels/logits.h"

#include "graph/gradients.h"
#include "kernels/gemm.h"
#include "kernels/parts.h"
#include "memory/allocate.h"
#include "ops/operands.h"

#include <string.h>

struct rows {
    int64_t first;       /* the first row of x */
    int32_t interleaved; /* the d_head given to tnn_tensor_set_interleaved for W, or 0 */
    bool    bf16;        /* whether tnn_tensor_set_bf16_products was called for W */
    /* the fields below are for the gradient of W */
    float * nodes;   /* the nodes that wait for later rows (kernels/window_sums.h), or NULL */
    int64_t windows; /* number of windows in a batch */
    int64_t m, n;    /* the shape of W */
};

static int64_t first_row(const struct tnn_kernel * k) {
    return ((const struct rows *) k->params)->first;
}

/* Describes W, or W^T if transposed, as operand B of a product. */
static struct tnn_gemm product_with(const struct tnn_kernel * k, const struct ggml_tensor * w, bool transposed) {
    const struct tnn_stored stored = tnn__stored(w, transposed, ((const struct rows *) k->params)->interleaved);
    return (struct tnn_gemm) {
        .n = w->ne[transposed ? 1 : 0], .k = w->ne[transposed ? 0 : 1],
        .b = stored.data == NULL ? tnn__data(w) : NULL, .b_row = transposed ? 1 : w->ne[0], .b_col = transposed ? w->ne[0] : 1,
        .stored = stored, .bf16 = ((const struct rows *) k->params)->bf16,
    };
}

/* Operands: x, W. */
static void run(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    const struct ggml_tensor * x = dst->src[0], * w = dst->src[1];
    struct tnn_gemm g = product_with(k, w, true);
    g.m     = dst->ne[1];
    g.a     = tnn__data(x) + first_row(k) * x->ne[0];
    g.a_row = x->ne[0];
    g.a_col = 1;
    g.c     = dst->data;
    g.c_row = dst->ne[0];
    tnn__gemm_share(&g, ith, nth, scratch);
}

/* Computes rows of dx = dy W. The first node of a gradient sets all other rows to 0, and the later nodes add their rows.
 * Operands: [dx so far,] dy, W. */
static void run_back_x(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    const struct ggml_tensor * dy = tnn__operand(k, dst, 0), * w = tnn__operand(k, dst, 1);
    const int64_t d = dst->ne[0], first = first_row(k), end = first + dy->ne[1];
    if (!k->continues) {
        int64_t from, to;
        tnn__part(dst->ne[1], 1, ith, nth, &from, &to);
        for (int64_t row = from; row < to; row++) {
            if (row < first || row >= end) {
                memset((float *) dst->data + row * d, 0, (size_t) d * sizeof(float));
            }
        }
    }
    struct tnn_gemm g = product_with(k, w, false);
    g.m     = dy->ne[1];
    g.a     = tnn__data(dy);
    g.a_row = dy->ne[0];
    g.a_col = 1;
    g.c     = (float *) dst->data + first * d;
    g.c_row = d;
    g.accumulate = k->continues;
    tnn__gemm_share(&g, ith, nth, scratch);
}

/* Adds some rows to dW = dy^T x. The backward pass begins with the loss, so these rows are the first part of the
 * gradient of W, and dW holds nothing else. Until the last rows are added, dW can therefore hold the chain of a
 * window whose rows are not complete. Operands: [dW so far,] dy, x. */
static void run_back_w(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    const struct ggml_tensor * dy = tnn__operand(k, dst, 0), * x = tnn__operand(k, dst, 1);
    const struct rows * p = k->params;
    const struct tnn_gemm g = {
        .m = dst->ne[1], .n = dst->ne[0], .k = dy->ne[1],
        .a = tnn__data(dy), .a_row = 1, .a_col = dy->ne[0], /* dy^T */
        .b = tnn__data(x) + first_row(k) * x->ne[0], .b_row = x->ne[0], .b_col = 1,
        .c = dst->data, .c_row = dst->ne[0],
        .accumulate = k->s->windows.single && k->continues, .bf16 = p->bf16,
        .windows    = k->s->windows.single ? NULL : &k->s->windows, .stored_at = k->stored_at,
        .rows = { .first = first_row(k), .n = dy->ne[1], .window = x->ne[1] / k->s->windows.n, .slots = p->nodes,
                  .slot_size = (size_t) ggml_nelements(dst) },
    };
    tnn__gemm_share(&g, ith, nth, scratch);
}

static size_t scratch_size(const void * params) {
    (void) params;
    return tnn__gemm_scratch();
}

static size_t scratch_of_weight(const void * params) {
    const struct rows * p = params;
    return tnn__gemm_windows_scratch(p->m, p->n, p->windows);
}

static int64_t cost(const struct tnn_kernel * k, const struct ggml_tensor * node) {
    (void) k;
    return ggml_nelements(node) * node->src[0]->ne[0];
}

/* A gradient costs as much as the logits: the size of dy times the length of a row of x. */
static int64_t cost_of_gradient(const struct tnn_kernel * k, const struct ggml_tensor * node) {
    return ggml_nelements(tnn__operand(k, node, 0)) * node->ne[0];
}

static const struct tnn_kernel_type LOGITS_BACK_X = {
    .name = "LOGITS_BACK_X", .run = run_back_x, .sum = TNN_SUM_IN_PLACE, .multiply_adds = cost_of_gradient,
    .scratch = scratch_size, .at_once = true, .params_size = sizeof(struct rows),
};
static const struct tnn_kernel_type LOGITS_BACK_W = {
    .name = "LOGITS_BACK_W", .run = run_back_w, .sum = TNN_SUM_IN_PLACE, .over_windows = true, .multiply_adds = cost_of_gradient,
    .scratch = scratch_of_weight, .at_once = true, .params_size = sizeof(struct rows),
};

/* Returns memory for the sums of the gradient of W that wait for later rows, or NULL if no sum waits. Returns NULL
 * with an error if memory runs out. The kernel nodes of later rows use the same memory. */
static float * nodes_between_rows(struct tnn_gradients * g, const struct ggml_tensor * logits, const struct ggml_tensor * before) {
    const struct ggml_tensor * x = logits->src[0], * w = logits->src[1];
    if (before != NULL && tnn__is_kernel(before, &LOGITS_BACK_W)) {
        return ((const struct rows *) tnn__kernel_of(before)->params)->nodes;
    }
    if (g->s->windows.n == 1 || logits->ne[1] == x->ne[1]) {
        return NULL;
    }
    /* If each batch is a whole node of the tree (kernels/window_sums.h), no node begins in one batch and ends in a later
     * batch. */
    const int64_t n       = g->s->windows.n;
    const bool    is_node = (n & (n - 1)) == 0 && g->s->first_window % n == 0;
    const size_t  slots   = (size_t) tnn__local_slots(n, is_node) * (size_t) ggml_nelements(w);
    float * nodes = tnn__graph_alloc(g->s, slots * sizeof(float), "sums of the gradient of the output matrix");
    g->failed = g->failed || nodes == NULL;
    g->s->nodes_nbytes += nodes != NULL ? slots * sizeof(float) : 0;
    return nodes;
}

void tnn__logits_backward(struct tnn_gradients * g, struct ggml_tensor * logits, struct ggml_tensor * grad) {
    struct rows          params = *(const struct rows *) tnn__kernel_of(logits)->params;
    struct ggml_tensor * x = logits->src[0], * w = logits->src[1];
    struct ggml_tensor * for_x[] = { grad, w }, * for_w[] = { grad, x };
    if (tnn__needs_gradient(g, x)) {
        tnn__add_gradient(g, x, &LOGITS_BACK_X, &params, for_x, 2);
    }
    if (tnn__needs_gradient(g, w)) {
        params.nodes   = nodes_between_rows(g, logits, tnn__gradient_so_far(g, w));
        params.windows = g->s->windows.n;
        params.m       = w->ne[1];
        params.n       = w->ne[0];
        tnn__add_gradient(g, w, &LOGITS_BACK_W, &params, for_w, 2);
    }
}

static const struct tnn_kernel_type LOGITS = {
    .name = "LOGITS", .run = run, .backward = tnn__logits_backward, .differentiable = TNN_ALL_OPERANDS, .multiply_adds = cost,
    .scratch = scratch_size, .params_size = sizeof(struct rows),
};

struct ggml_tensor * tnn__logits(tnn_session * s, struct ggml_tensor * x, struct ggml_tensor * w, int64_t first, int64_t n) {
    const struct tnn_entry * e      = tnn__entry_of(s, w);
    const struct rows        rows   = {
        .first = first, .interleaved = e != NULL ? e->interleaved : 0, .bf16 = e != NULL && e->bf16_products,
    };
    struct ggml_tensor     * args[] = { x, w };
    return tnn__kernel_node(s, &LOGITS, &rows, w->ne[1], n, args, 2);
}

bool tnn__is_logits(const struct ggml_tensor * t) {
    return tnn__is_kernel(t, &LOGITS);
}
