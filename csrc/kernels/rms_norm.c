/* kernels/rms_norm.c - RMSNorm with its weight: y = x / rms(x) * gamma. The parameter of a node is eps. */
#include "graph/gradients.h"
#include "kernels/kernel.h"
#include "kernels/parts.h"
#include "kernels/rms.h"
#include "ops/operands.h"

/* Computes y = x / rms(x) * gamma. Operands: x, gamma. */
static void run(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    (void) scratch;
    const int64_t d = dst->ne[0];
    const float   eps = *(const float *) k->params;
    const float * gamma = tnn__data(dst->src[1]);
    int64_t begin, end;
    tnn__part(dst->ne[1], 1, ith, nth, &begin, &end);
    for (int64_t row = begin; row < end; row++) {
        tnn__rms_norm_row(tnn__data(dst->src[0]) + row * d, gamma, (float *) dst->data + row * d, d, eps);
    }
}

/* Computes dx = r (g - x r^2 mean(g x)) (+ add), with g = dy * gamma and r = 1 / rms(x). Operands: dy, x, gamma,
 * [add]. */
static void run_back_x(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    (void) scratch;
    const int64_t d = dst->ne[0];
    const float   eps = *(const float *) k->params;
    const float * gamma = tnn__data(dst->src[2]);
    int64_t begin, end;
    tnn__part(dst->ne[1], 1, ith, nth, &begin, &end);
    for (int64_t row = begin; row < end; row++) {
        const float * dy  = tnn__data(dst->src[0]) + row * d;
        const float * x   = tnn__data(dst->src[1]) + row * d;
        const float * add = k->has_add ? tnn__data(dst->src[3]) + row * d : NULL;
        tnn__rms_norm_row_back_x(dy, x, gamma, add, (float *) dst->data + row * d, d, eps);
    }
}

/* The parameters of the gradient of gamma. */
struct gamma {
    float   eps;
    int64_t n, windows; /* number of elements of gamma, number of windows in a batch */
};

/* Computes dgamma = sum of dy * x / rms(x) over the rows of each window, in their order. Each thread computes some
 * columns. Operands: [dgamma so far,] dy, x. */
static void run_back_gamma(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    const struct ggml_tensor * dy = tnn__operand(k, dst, 0), * x = tnn__operand(k, dst, 1);
    const struct gamma       * p  = k->params;
    const int64_t d = dst->ne[0], rows = x->ne[1] / p->windows;
    int64_t begin, end;
    tnn__part(d, 16, ith, nth, &begin, &end);
    if (begin == end) {
        return;
    }
    float * const sum = scratch;
    const struct tnn_column_sums sums = tnn__column_sums(k, dst, begin, end - begin, sum + (end - begin));
    for (int64_t window = 0; window < p->windows; window++) {
        tnn__start_sum(k, &sums, sum);
        for (int64_t row = window * rows; row < (window + 1) * rows; row++) {
            tnn__rms_norm_row_back_gamma(tnn__data(dy) + row * d, tnn__data(x) + row * d, sum, begin, end, d, p->eps);
        }
        tnn__add_window(&sums, window, sum);
    }
}

static size_t scratch_of_gamma(const void * params) {
    const struct gamma * p = params;
    return tnn__sums_scratch(p->n, p->windows);
}

static const struct tnn_kernel_type RMS_NORM_BACK_X = {
    .name = "RMS_NORM_BACK_X", .run = run_back_x, .sum = TNN_SUM_OPERAND, .in_place = TNN_OPERAND(0), .params_size = sizeof(float),
};
static const struct tnn_kernel_type RMS_NORM_BACK_GAMMA = {
    .name = "RMS_NORM_BACK_GAMMA", .run = run_back_gamma, .sum = TNN_SUM_IN_PLACE, .over_windows = true, .scratch = scratch_of_gamma,
    .params_size = sizeof(struct gamma),
};

static void backward(struct tnn_gradients * g, struct ggml_tensor * node, struct ggml_tensor * grad) {
    struct ggml_tensor * x = node->src[0], * gamma = node->src[1];
    struct ggml_tensor * args[] = { grad, x, gamma };
    const void         * eps    = tnn__kernel_of(node)->params;
    if (tnn__needs_gradient(g, gamma)) {
        const struct gamma p = { .eps = *(const float *) eps, .n = gamma->ne[0], .windows = g->s->windows.n };
        tnn__add_gradient(g, gamma, &RMS_NORM_BACK_GAMMA, &p, args, 2);
    }
    if (tnn__needs_gradient(g, x)) {
        tnn__add_gradient(g, x, &RMS_NORM_BACK_X, eps, args, 3);
    }
}

static const struct tnn_kernel_type RMS_NORM = {
    .name = "RMS_NORM_GAMMA", .run = run, .backward = backward, .differentiable = TNN_OPERAND(0) | TNN_OPERAND(1),
    .params_size = sizeof(float),
};

tnn_tensor tnn_fused_rms_norm(tnn_session * s, tnn_tensor x, tnn_tensor gamma, float eps) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * tx = tnn__rows_operand(s, "x", x);
    struct ggml_tensor * tg = tx != NULL ? tnn__per_column(s, "gamma", gamma, tx) : NULL;
    if (tg == NULL || !tnn__want_eps(s, eps) || !tnn__reserve_nodes(s, 1)) {
        return 0;
    }
    struct ggml_tensor * args[] = { tx, tg };
    return tnn__handle(s, tnn__kernel_node(s, &RMS_NORM, &eps, tx->ne[0], tx->ne[1], args, 2));
}
