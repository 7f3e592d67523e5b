/* kernels/head_norm.c - RMSNorm over each query head and each key head, with one weight for all query heads and one for
 * all key heads.
 *
 * One row of the operand has a token's query heads, then its key heads, then its value heads, as for attention. The
 * value heads stay as they are.
 */
#include "graph/gradients.h"
#include "kernels/each_vector.h"
#include "kernels/kernel.h"
#include "kernels/parts.h"
#include "kernels/rms.h"
#include "ops/operands.h"

struct head_norm {
    int32_t n_heads, n_kv;
    float   eps;
    /* the fields below are for the gradient of a weight */
    int32_t first, end; /* the weight is used in heads first..end-1 */
    int64_t d, windows; /* size of a head, number of windows in a batch */
};

/* Returns the weight of a head, or NULL for a value head. */
static const float * weight_of(const struct head_norm * p, int64_t head, const struct ggml_tensor * gamma_q,
                               const struct ggml_tensor * gamma_k) {
    return head < p->n_heads ? tnn__data(gamma_q) : head < p->n_heads + p->n_kv ? tnn__data(gamma_k) : NULL;
}

/* Computes y = x / rms(x) * gamma for each query and key head, and y = x for each value head. Operands: qkv, gamma_q,
 * gamma_k. */
static void run(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    (void) scratch;
    const struct head_norm * p = k->params;
    const int64_t d = dst->src[1]->ne[0], heads = p->n_heads + 2 * (int64_t) p->n_kv;
    int64_t begin, end;
    tnn__part(dst->ne[1] * heads, 1, ith, nth, &begin, &end);
    for (int64_t at = begin; at < end; at++) {
        const float * x     = tnn__data(dst->src[0]) + at * d;
        const float * gamma = weight_of(p, at % heads, dst->src[1], dst->src[2]);
        float       * y     = (float *) dst->data + at * d;
        if (gamma == NULL) {
            memcpy(y, x, (size_t) d * sizeof(float));
            continue;
        }
        tnn__rms_norm_row(x, gamma, y, d, p->eps);
    }
}

/* Computes, for each query and key head, dx = r (g - x r^2 mean(g x)) (+ add), with g = dy * gamma and r = 1 / rms(x),
 * and for each value head dx = dy (+ add). Operands: dy, qkv, gamma_q, gamma_k, [add]. */
static void run_back_x(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    (void) scratch;
    const struct head_norm * p = k->params;
    const int64_t d = dst->src[2]->ne[0], heads = p->n_heads + 2 * (int64_t) p->n_kv;
    int64_t begin, end;
    tnn__part(dst->ne[1] * heads, 1, ith, nth, &begin, &end);
    for (int64_t at = begin; at < end; at++) {
        const float * dy    = tnn__data(dst->src[0]) + at * d;
        const float * x     = tnn__data(dst->src[1]) + at * d;
        const float * add   = k->has_add ? tnn__data(dst->src[4]) + at * d : NULL;
        const float * gamma = weight_of(p, at % heads, dst->src[2], dst->src[3]);
        float       * dx    = (float *) dst->data + at * d; /* dx may be the same memory as dy */
        if (gamma == NULL) {
            EACH_VECTOR(d, { const v8f g = LOAD(dy); STORE(dx, add != NULL ? g + LOAD(add) : g); })
            continue;
        }
        tnn__rms_norm_row_back_x(dy, x, gamma, add, dx, d, p->eps);
    }
}

/* Computes dgamma = sum of dy * x / rms(x) over the rows of each window and, within a row, over the heads
 * first..end-1, in their order. Each thread computes some columns. Operands: [dgamma so far,] dy, qkv. */
static void run_back_gamma(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    const struct head_norm   * p  = k->params;
    const struct ggml_tensor * dy = tnn__operand(k, dst, 0), * x = tnn__operand(k, dst, 1);
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
            for (int64_t head = p->first; head < p->end; head++) {
                const int64_t at = row * x->ne[0] + head * d;
                tnn__rms_norm_row_back_gamma(tnn__data(dy) + at, tnn__data(x) + at, sum, begin, end, d, p->eps);
            }
        }
        tnn__add_window(&sums, window, sum);
    }
}

static size_t scratch_of_gamma(const void * params) {
    const struct head_norm * p = params;
    return tnn__sums_scratch(p->d, p->windows);
}

static const struct tnn_kernel_type HEAD_NORM_BACK_X = {
    .name = "HEAD_NORM_BACK_X", .run = run_back_x, .sum = TNN_SUM_OPERAND, .in_place = TNN_OPERAND(0),
    .params_size = sizeof(struct head_norm),
};
static const struct tnn_kernel_type HEAD_NORM_BACK_GAMMA = {
    .name = "HEAD_NORM_BACK_GAMMA", .run = run_back_gamma, .sum = TNN_SUM_IN_PLACE, .over_windows = true, .scratch = scratch_of_gamma,
    .params_size = sizeof(struct head_norm),
};

static void backward(struct tnn_gradients * g, struct ggml_tensor * node, struct ggml_tensor * grad) {
    struct ggml_tensor * qkv = node->src[0], * gamma_q = node->src[1], * gamma_k = node->src[2];
    struct ggml_tensor * args[] = { grad, qkv, gamma_q, gamma_k };
    struct head_norm     p      = *(const struct head_norm *) tnn__kernel_of(node)->params;
    p.d       = gamma_q->ne[0];
    p.windows = g->s->windows.n;
    if (tnn__needs_gradient(g, gamma_q)) {
        p.first = 0;
        p.end   = p.n_heads;
        tnn__add_gradient(g, gamma_q, &HEAD_NORM_BACK_GAMMA, &p, args, 2);
    }
    if (tnn__needs_gradient(g, gamma_k)) {
        p.first = p.n_heads;
        p.end   = p.n_heads + p.n_kv;
        tnn__add_gradient(g, gamma_k, &HEAD_NORM_BACK_GAMMA, &p, args, 2);
    }
    if (tnn__needs_gradient(g, qkv)) {
        tnn__add_gradient(g, qkv, &HEAD_NORM_BACK_X, &p, args, 4);
    }
}

static const struct tnn_kernel_type HEAD_NORM = {
    .name = "HEAD_NORM", .run = run, .backward = backward, .differentiable = TNN_OPERAND(0) | TNN_OPERAND(1) | TNN_OPERAND(2),
    .params_size = sizeof(struct head_norm),
};

/* Returns a weight of heads of size d_head (0: any size), or NULL with an error. */
static struct ggml_tensor * gamma_operand(tnn_session * s, const char * name, tnn_tensor gamma, int64_t d_head) {
    struct ggml_tensor * t = tnn__f32_operand(s, name, gamma);
    if (t == NULL) {
        return NULL;
    }
    if (!ggml_is_vector(t)) {
        tnn__fail(s, TNN_E_VALUE, "%s has shape %s, but it must be [d_head]", name, tnn__shape(t));
        return NULL;
    }
    if (d_head != 0 && t->ne[0] != d_head) {
        tnn__fail(s, TNN_E_VALUE, "%s has shape %s, but it must have as many elements as gamma_q, [%lld]", name, tnn__shape(t),
                  (long long) d_head);
        return NULL;
    }
    return t;
}

tnn_tensor tnn_fused_head_norm(tnn_session * s, tnn_tensor qkv, tnn_tensor gamma_q, tnn_tensor gamma_k, int32_t n_heads, int32_t n_kv,
                               float eps) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * tx = tnn__rows_operand(s, "qkv", qkv);
    struct ggml_tensor * tq = tx != NULL ? gamma_operand(s, "gamma_q", gamma_q, 0) : NULL;
    struct ggml_tensor * tk = tq != NULL ? gamma_operand(s, "gamma_k", gamma_k, tq->ne[0]) : NULL;
    if (tk == NULL) {
        return 0;
    }
    if (n_heads < 1 || n_kv < 1) {
        tnn__fail(s, TNN_E_VALUE, "n_heads = %d and n_kv = %d must be at least 1", (int) n_heads, (int) n_kv);
        return 0;
    }
    const int64_t d_head = tq->ne[0];
    if (tx->ne[0] % d_head != 0 || tx->ne[0] / d_head != (int64_t) n_heads + 2 * (int64_t) n_kv) {
        tnn__fail(s, TNN_E_VALUE, "qkv has shape %s, but it must be [(n_heads + 2 n_kv) d_head, rows] = [(%d + 2*%d) * %lld, rows]",
                  tnn__shape(tx), (int) n_heads, (int) n_kv, (long long) d_head);
        return 0;
    }
    if (!tnn__want_eps(s, eps) || !tnn__reserve_nodes(s, 1)) {
        return 0;
    }
    struct ggml_tensor   * args[] = { tx, tq, tk };
    const struct head_norm p      = { .n_heads = n_heads, .n_kv = n_kv, .eps = eps };
    return tnn__handle(s, tnn__kernel_node(s, &HEAD_NORM, &p, tx->ne[0], tx->ne[1], args, 3));
}
