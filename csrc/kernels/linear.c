/* kernels/linear.c - y = x W^T + b for several weights at once, and a product that is added to columns of a tensor.
 *
 * Operands of LINEAR: x, weights..., [biases...], [add]. A row of y has the outputs of all weights side by side.
 * Operands of ADD_PRODUCT: y, x, weight.
 */
#include "graph/gradients.h"
#include "kernels/gemm.h"
#include "kernels/kernel.h"
#include "kernels/parts.h"
#include "ops/operands.h"

#include <string.h>

#define MAX_WEIGHTS 3 /* ggml allows nine operands; x, three weights, three biases and an addend are eight */

struct linear {
    int32_t n_weights;
    int32_t head[MAX_WEIGHTS]; /* for each weight, the d_head given to tnn_tensor_set_interleaved, or 0 */
    bool    bf16[MAX_WEIGHTS]; /* for each weight, whether tnn_tensor_set_bf16_products was called for it */
    bool    has_bias, has_add;
    int64_t column; /* the first column of y that the weights compute; only ADD_PRODUCT starts at another column than 0 */
};

/* Returns the data of a weight that is read in place, or NULL if its rows are converted first (kernels/stored.h). */
static const float * f32_data(const struct ggml_tensor * w, int32_t head) {
    return w->type == GGML_TYPE_F32 && head == 0 ? tnn__data(w) : NULL;
}

/* Returns the index of the operand that is added to the result. */
static int add_at(const struct linear * p) {
    return 1 + p->n_weights * (p->has_bias ? 2 : 1);
}

static void run(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    const struct linear      * p   = k->params;
    const struct ggml_tensor * x   = dst->src[0];
    const struct ggml_tensor * add = p->has_add ? dst->src[add_at(p)] : NULL;
    int64_t column = 0;
    for (int i = 0; i < p->n_weights; i++) {
        const struct ggml_tensor * w = dst->src[1 + i];
        const struct tnn_gemm g = {
            .m = x->ne[1], .n = w->ne[1], .k = w->ne[0],
            .a = tnn__data(x), .a_row = x->ne[0], .a_col = 1,
            .b = f32_data(w, p->head[i]), .b_row = 1, .b_col = w->ne[0], .stored = tnn__stored(w, true, p->head[i]), /* W^T */
            .c = (float *) dst->data + column, .c_row = dst->ne[0],
            .bias = p->has_bias ? tnn__data(dst->src[1 + p->n_weights + i]) : NULL,
            .add  = add != NULL ? tnn__data(add) + column : NULL,
            .bf16 = p->bf16[i],
        };
        tnn__gemm_share(&g, ith, nth, scratch);
        column += w->ne[1];
    }
}

/* Computes dx = sum over the weights of dy W (+ add). The fused multiply-adds with a weight start from the sum of the
 * products with the weights before it. Operands: dy, weights..., [add]. */
static void run_back_x(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    const struct linear      * p   = k->params;
    const struct ggml_tensor * dy  = dst->src[0];
    const struct ggml_tensor * add = k->has_add ? dst->src[1 + p->n_weights] : NULL;
    int64_t column = p->column;
    for (int i = 0; i < p->n_weights; i++) {
        const struct ggml_tensor * w = dst->src[1 + i];
        const struct tnn_gemm g = {
            .m = dst->ne[1], .n = dst->ne[0], .k = w->ne[1],
            .a = tnn__data(dy) + column, .a_row = dy->ne[0], .a_col = 1,
            .b = f32_data(w, p->head[i]), .b_row = w->ne[0], .b_col = 1, .stored = tnn__stored(w, false, p->head[i]),
            .c = dst->data, .c_row = dst->ne[0],
            .accumulate = i > 0, .bf16 = p->bf16[i],
            .add = add != NULL && i == p->n_weights - 1 ? tnn__data(add) : NULL,
        };
        tnn__gemm_share(&g, ith, nth, scratch);
        column += w->ne[1];
    }
}

/* The parameters of the gradient of a weight or bias. */
struct column {
    int64_t first;   /* the first column of dy that belongs to the weight */
    int64_t n;       /* the number of columns of dy that belong to the weight */
    int64_t x;       /* the number of columns of x */
    int64_t windows; /* number of windows in a batch */
    bool    bf16;    /* round the operands to bfloat16 */
};

/* Computes dW = dy^T x from the columns of dy that belong to this weight, one chain for each window. Operands: [dW so
 * far,] dy, x. */
static void run_back_w(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    const struct ggml_tensor * dy = tnn__operand(k, dst, 0), * x = tnn__operand(k, dst, 1);
    const struct column      * p  = k->params;
    const struct tnn_gemm g = {
        .m = dst->ne[1], .n = dst->ne[0], .k = x->ne[1],
        .a = tnn__data(dy) + p->first, .a_row = 1, .a_col = dy->ne[0], /* dy^T */
        .b = tnn__data(x), .b_row = x->ne[0], .b_col = 1,
        .c = dst->data, .c_row = dst->ne[0],
        .accumulate = k->continues, .bf16 = p->bf16,
        .windows = k->s->windows.single ? NULL : &k->s->windows, .stored_at = k->stored_at,
    };
    tnn__gemm_share(&g, ith, nth, scratch);
}

/* Computes db, the sum of the rows of dy in their order, from the columns that belong to this bias. Operands: [db so
 * far,] dy. */
static void run_back_bias(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    const struct ggml_tensor * dy = tnn__operand(k, dst, 0);
    const struct column      * p  = k->params;
    const int64_t rows = dy->ne[1] / p->windows;
    int64_t begin, end;
    tnn__part(dst->ne[0], 16, ith, nth, &begin, &end);
    const int64_t n   = end - begin;
    float * const sum = scratch;
    const struct tnn_column_sums sums = tnn__column_sums(k, dst, begin, n, sum + n);
    for (int64_t window = 0; window < p->windows; window++) {
        tnn__start_sum(k, &sums, sum);
        for (int64_t row = window * rows; row < (window + 1) * rows; row++) {
            const float * g = tnn__data(dy) + row * dy->ne[0] + p->first + begin;
            for (int64_t j = 0; j < n; j++) {
                sum[j] += g[j];
            }
        }
        tnn__add_window(&sums, window, sum);
    }
}

static size_t scratch_size(const void * params) {
    (void) params;
    return tnn__gemm_scratch();
}

static size_t scratch_of_weight(const void * params) {
    const struct column * p = params;
    return tnn__gemm_windows_scratch(p->n, p->x, p->windows);
}

static size_t scratch_of_bias(const void * params) {
    const struct column * p = params;
    return tnn__sums_scratch(p->n, p->windows);
}

/* Each element of the result is a sum over a row of x, or of dy. */
static int64_t cost_of_rows(const struct tnn_kernel * k, const struct ggml_tensor * node) {
    (void) k;
    return ggml_nelements(node) * node->src[0]->ne[0];
}

/* Each element of the result is a sum over all rows. */
static int64_t cost_of_columns(const struct tnn_kernel * k, const struct ggml_tensor * node) {
    return ggml_nelements(node) * tnn__operand(k, node, 0)->ne[1];
}

static const struct tnn_kernel_type LINEAR_BACK_X = {
    .name = "LINEAR_BACK_X", .run = run_back_x, .sum = TNN_SUM_OPERAND, .multiply_adds = cost_of_rows, .scratch = scratch_size,
    .params_size = sizeof(struct linear),
};
static const struct tnn_kernel_type LINEAR_BACK_W = {
    .name = "LINEAR_BACK_W", .run = run_back_w, .sum = TNN_SUM_IN_PLACE, .over_windows = true, .multiply_adds = cost_of_columns, .scratch = scratch_of_weight,
    .params_size = sizeof(struct column),
};
static const struct tnn_kernel_type LINEAR_BACK_BIAS = {
    .name = "LINEAR_BACK_BIAS", .run = run_back_bias, .sum = TNN_SUM_IN_PLACE, .over_windows = true, .scratch = scratch_of_bias,
    .params_size = sizeof(struct column),
};

static void backward(struct tnn_gradients * g, struct ggml_tensor * node, struct ggml_tensor * grad) {
    const struct linear * p = tnn__kernel_of(node)->params;
    const int n = p->n_weights;
    struct ggml_tensor * x = node->src[0];
    if (p->has_add && tnn__needs_gradient(g, node->src[add_at(p)])) {
        tnn__pass_gradient(g, node->src[add_at(p)], grad);
    }
    if (tnn__needs_gradient(g, x)) {
        struct ggml_tensor * args[GGML_MAX_SRC] = { grad };
        memcpy(&args[1], &node->src[1], (size_t) n * sizeof(args[0]));
        tnn__add_gradient(g, x, &LINEAR_BACK_X, p, args, 1 + n);
    }
    struct column column = { .x = x->ne[0], .windows = g->s->windows.n };
    for (int i = 0; i < n; i++) {
        struct ggml_tensor * weight = node->src[1 + i];
        column.n    = weight->ne[1];
        column.bf16 = p->bf16[i];
        struct ggml_tensor * bias   = p->has_bias ? node->src[1 + n + i] : NULL;
        struct ggml_tensor * args[] = { grad, x };
        if (tnn__needs_gradient(g, weight)) {
            tnn__add_gradient(g, weight, &LINEAR_BACK_W, &column, args, 2);
        }
        if (bias != NULL && tnn__needs_gradient(g, bias)) {
            tnn__add_gradient(g, bias, &LINEAR_BACK_BIAS, &column, args, 1);
        }
        column.first += column.n;
    }
}

static const struct tnn_kernel_type LINEAR = {
    .name = "LINEAR", .run = run, .backward = backward, .differentiable = TNN_ALL_OPERANDS, .multiply_adds = cost_of_rows,
    .scratch = scratch_size, .params_size = sizeof(struct linear),
};

tnn_tensor tnn_fused_linear(tnn_session * s, tnn_tensor x, const tnn_tensor * weights, const tnn_tensor * biases, int32_t n,
                            tnn_tensor add) {
    static const char * const WEIGHT[] = { "weights[0]", "weights[1]", "weights[2]" };
    static const char * const BIAS[]   = { "biases[0]", "biases[1]", "biases[2]" };
    if (!tnn__enter(s, __func__) || !tnn__want_list(s, "weights", weights, n, MAX_WEIGHTS)) {
        return 0;
    }
    struct ggml_tensor * args[GGML_MAX_SRC];
    int n_args = 0;
    struct ggml_tensor * tx = args[n_args++] = tnn__rows_operand(s, "x", x);
    int64_t columns = 0;
    if (tx == NULL) {
        return 0;
    }
    for (int i = 0; i < n; i++) {
        struct ggml_tensor * w = args[n_args++] = tnn__tensor(s, WEIGHT[i], weights[i]);
        if (w == NULL || !tnn__want_matrix_type(s, WEIGHT[i], w) || !tnn__want_contiguous(s, WEIGHT[i], w)
            || !tnn__want_matrix(s, WEIGHT[i], w)) {
            return 0;
        }
        if (w->ne[0] != tx->ne[0]) {
            tnn__fail(s, TNN_E_VALUE, "%s has shape %s; its ne0 must equal the ne0 of x, of shape %s",
                      WEIGHT[i], tnn__shape(w), tnn__shape(tx));
            return 0;
        }
        columns += w->ne[1];
    }
    for (int i = 0; i < n && biases != NULL; i++) {
        struct ggml_tensor * b = args[n_args++] = tnn__f32_operand(s, BIAS[i], biases[i]);
        if (b == NULL) {
            return 0;
        }
        if (!ggml_is_vector(b) || b->ne[0] != args[1 + i]->ne[1]) {
            tnn__fail(s, TNN_E_VALUE, "%s has shape %s, but it must be [%lld] for a weight of shape %s",
                      BIAS[i], tnn__shape(b),
                      (long long) args[1 + i]->ne[1], tnn__shape(args[1 + i]));
            return 0;
        }
    }
    if (columns > TNN_MAX_ELEMENTS / tx->ne[1]) {
        tnn__fail_elements(s, "the product");
        return 0;
    }
    if (add != 0) {
        struct ggml_tensor * a = args[n_args++] = tnn__rows_operand(s, "add", add);
        if (a == NULL) {
            return 0;
        }
        if (a->ne[0] != columns || a->ne[1] != tx->ne[1]) {
            tnn__fail(s, TNN_E_VALUE, "the operand add has shape %s, but it must be [%lld, %lld]",
                      tnn__shape(a), (long long) columns, (long long) tx->ne[1]);
            return 0;
        }
    }
    if (!tnn__reserve_nodes(s, 1)) {
        return 0;
    }
    struct linear p = { .n_weights = n, .has_bias = biases != NULL, .has_add = add != 0 };
    for (int i = 0; i < n; i++) {
        const struct tnn_entry * e = tnn__entry_of(s, args[1 + i]);
        p.head[i] = e != NULL ? e->interleaved : 0;
        p.bf16[i] = e != NULL && e->bf16_products;
    }
    return tnn__handle(s, tnn__kernel_node(s, &LINEAR, &p, columns, tx->ne[1], args, n_args));
}

/* ------------------------------------------------------------------ a product added to columns */

/* Each thread computes rows of its own. The chains of multiply-adds start from the elements of y. */
static void run_add_product(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    const struct ggml_tensor * y = dst->src[0], * x = dst->src[1], * w = dst->src[2];
    int64_t begin, end;
    tnn__part(dst->ne[1], 1, ith, nth, &begin, &end);
    if (begin == end) {
        return;
    }
    float * rows = (float *) dst->data + begin * dst->ne[0];
    if (dst->data != y->data) {
        memcpy(rows, tnn__data(y) + begin * dst->ne[0], (size_t) ((end - begin) * dst->ne[0]) * sizeof(float));
    }
    const struct tnn_gemm g = {
        .m = end - begin, .n = w->ne[1], .k = w->ne[0],
        .a = tnn__data(x) + begin * x->ne[0], .a_row = x->ne[0], .a_col = 1,
        .b = tnn__data(w), .b_row = 1, .b_col = w->ne[0], /* W^T */
        .c = rows + ((const struct linear *) k->params)->column, .c_row = dst->ne[0],
        .accumulate = true,
    };
    tnn__gemm(&g, scratch);
}

static void backward_of_add_product(struct tnn_gradients * g, struct ggml_tensor * node, struct ggml_tensor * grad) {
    const struct linear * p = tnn__kernel_of(node)->params;
    struct ggml_tensor * x = node->src[1], * w = node->src[2];
    if (tnn__needs_gradient(g, node->src[0])) {
        tnn__pass_gradient(g, node->src[0], grad);
    }
    if (tnn__needs_gradient(g, x)) {
        struct ggml_tensor * args[] = { grad, w };
        tnn__add_gradient(g, x, &LINEAR_BACK_X, p, args, 2);
    }
    if (tnn__needs_gradient(g, w)) {
        struct ggml_tensor * args[] = { grad, x };
        const struct column column = { .first = p->column, .n = w->ne[1], .x = x->ne[0], .windows = g->s->windows.n };
        tnn__add_gradient(g, w, &LINEAR_BACK_W, &column, args, 2);
    }
}

/* Each element of the product is a sum over a row of x. */
static int64_t cost_of_add_product(const struct tnn_kernel * k, const struct ggml_tensor * node) {
    (void) k;
    return ggml_nelements(node->src[2]) * node->ne[1];
}

static const struct tnn_kernel_type ADD_PRODUCT = {
    .name = "ADD_PRODUCT", .run = run_add_product, .backward = backward_of_add_product, .differentiable = TNN_ALL_OPERANDS,
    .in_place = TNN_OPERAND(0), .multiply_adds = cost_of_add_product, .scratch = scratch_size,
    .params_size = sizeof(struct linear),
};

tnn_tensor tnn_fused_add_product(tnn_session * s, tnn_tensor y, tnn_tensor x, tnn_tensor weight, int64_t column) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * ty = tnn__rows_operand(s, "y", y);
    struct ggml_tensor * tx = ty != NULL ? tnn__rows_operand(s, "x", x) : NULL;
    struct ggml_tensor * w  = tx != NULL ? tnn__rows_operand(s, "weight", weight) : NULL;
    if (w == NULL) {
        return 0;
    }
    if (tx->ne[1] != ty->ne[1]) {
        tnn__fail(s, TNN_E_VALUE, "x has shape %s; its ne1 must equal the ne1 of y, of shape %s", tnn__shape(tx), tnn__shape(ty));
        return 0;
    }
    if (w->ne[0] != tx->ne[0]) {
        tnn__fail(s, TNN_E_VALUE, "weight has shape %s; its ne0 must equal the ne0 of x, of shape %s", tnn__shape(w), tnn__shape(tx));
        return 0;
    }
    if (column < 0 || column > ty->ne[0] - w->ne[1]) {
        tnn__fail(s, TNN_E_VALUE, "column must be from 0 to %lld - %lld (ne0 of y minus ne1 of weight), got %lld",
                  (long long) ty->ne[0], (long long) w->ne[1], (long long) column);
        return 0;
    }
    if (!tnn__reserve_nodes(s, 1)) {
        return 0;
    }
    struct ggml_tensor * args[] = { ty, tx, w };
    const struct linear p = { .n_weights = 1, .column = column };
    return tnn__handle(s, tnn__kernel_node(s, &ADD_PRODUCT, &p, ty->ne[0], ty->ne[1], args, 3));
}
