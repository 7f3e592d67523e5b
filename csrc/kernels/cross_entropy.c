/* kernels/cross_entropy.c - cross entropy on target ids: the mean over the rows whose target is not the ignored id.
 *
 * Within rounding, the result is that of CROSS_ENTROPY_LOSS on one-hot labels, but a target is one number instead of a
 * row of labels. The parameter of a node is the ignored id.
 */
#include "graph/gradients.h"
#include "kernels/kernel.h"
#include "kernels/parts.h"
#include "kernels/softmax.h"
#include "ops/operands.h"

/* Computes -log softmax(x)[target] of each row, and 0 if the target is ignored. Operands: logits, targets. */
static void run_rows(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    (void) scratch;
    const int64_t   n      = dst->src[0]->ne[0];
    const int32_t   ignore = *(const int32_t *) k->params;
    const int32_t * target = dst->src[1]->data;
    float         * loss   = dst->data;
    int64_t begin, end;
    tnn__part(dst->ne[0], 1, ith, nth, &begin, &end);
    for (int64_t row = begin; row < end; row++) {
        if (target[row] == ignore) {
            loss[row] = 0.0f;
            continue;
        }
        const float * x   = tnn__data(dst->src[0]) + row * n;
        const float   max = tnn__row_max(x, n);
        loss[row] = (float) (log((double) tnn__exp_sum(x, n, max, NULL)) + (double) max - (double) x[target[row]]);
    }
}

/* Returns the number of targets that are not ignored. */
static int64_t count_targets(const struct tnn_kernel * k, const struct ggml_tensor * targets) {
    const int32_t   ignore = *(const int32_t *) k->params;
    const int32_t * target = targets->data;
    int64_t count = 0;
    for (int64_t row = 0; row < targets->ne[0]; row++) {
        count += target[row] != ignore;
    }
    return count;
}

/* Returns the number by which the sum of the losses is divided: the value of the divisor, which may be NULL, or the
 * number of targets. */
static double divisor_of(const struct tnn_kernel * k, const struct ggml_tensor * targets, const struct ggml_tensor * divisor) {
    return divisor != NULL ? (double) *tnn__data(divisor) : (double) count_targets(k, targets);
}

/* Computes the sum of the rows' losses, added in f64 in their order, and divides it. Operands: losses of the rows,
 * targets, [divisor]. */
static void run_mean(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    (void) nth;
    (void) scratch;
    if (ith != 0) {
        return;
    }
    double sum = 0.0;
    for (int64_t row = 0; row < dst->src[0]->ne[0]; row++) {
        sum += (double) tnn__data(dst->src[0])[row];
    }
    *(float *) dst->data = (float) (sum / divisor_of(k, dst->src[1], dst->src[2]));
}

/* Computes dlogits = (softmax(x) - one-hot) / divisor, and 0 if the target is ignored. Operands: logits, targets,
 * [divisor]. */
static void run_back(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    (void) scratch;
    const int64_t   n      = dst->ne[0];
    const int32_t   ignore = *(const int32_t *) k->params;
    const int32_t * target = dst->src[1]->data;
    const float     weight = 1.0f / (float) divisor_of(k, dst->src[1], dst->src[2]);
    int64_t begin, end;
    tnn__part(dst->ne[1], 1, ith, nth, &begin, &end);
    for (int64_t row = begin; row < end; row++) {
        const float * x = tnn__data(dst->src[0]) + row * n;
        float       * g = (float *) dst->data + row * n; /* g may be the same memory as the logits */
        if (target[row] == ignore) {
            memset(g, 0, (size_t) n * sizeof(float));
            continue;
        }
        const float max   = tnn__row_max(x, n);
        const float scale = weight / tnn__exp_sum(x, n, max, g);
        for (int64_t i = 0; i < n; i++) {
            g[i] *= scale;
        }
        g[target[row]] -= weight;
    }
}

/* Checks that each target is a token or ignored. */
static int check_targets(tnn_session * s, const struct tnn_kernel * k, const struct ggml_tensor * node) {
    const struct ggml_tensor * targets = node->src[1];
    const int32_t   ignore = *(const int32_t *) k->params;
    const int64_t   vocab  = node->src[0]->ne[0];
    const int32_t * values = targets->data;
    for (int64_t i = 0; i < targets->ne[0]; i++) {
        if (values[i] != ignore && (values[i] < 0 || values[i] >= vocab)) {
            return tnn__fail(s, TNN_E_VALUE, "targets %s[%lld] = %d must be between 0 and %lld, or ignore_id = %d",
                             ggml_get_name(targets),
                             (long long) i, (int) values[i], (long long) vocab - 1, (int) ignore);
        }
    }
    return TNN_OK;
}

/* Checks that the sum of the losses is not divided by 0: without a divisor, at least one target must be a token. */
static int check_divisor(tnn_session * s, const struct tnn_kernel * k, const struct ggml_tensor * node) {
    const struct ggml_tensor * targets = node->src[1], * divisor = node->src[2];
    const float value = divisor != NULL ? *tnn__data(divisor) : 1.0f;
    if (!(value > 0.0f && value < INFINITY)) { /* a NaN makes the first comparison false */
        return tnn__fail(s, TNN_E_VALUE, "divisor %s = %g must be finite and above 0", ggml_get_name(divisor), (double) value);
    }
    if (divisor == NULL && count_targets(k, targets) == 0) {
        return tnn__fail(s, TNN_E_VALUE, "targets %s are all ignore_id = %d; at least one must be a token",
                         ggml_get_name(targets), (int) *(const int32_t *) k->params);
    }
    return TNN_OK;
}

static const struct tnn_kernel_type CROSS_ENTROPY_BACK = {
    .name = "CROSS_ENTROPY_BACK", .run = run_back, .in_place = TNN_OPERAND(0), .params_size = sizeof(int32_t),
};

/* One node computes the gradient of the logits directly from the gradient of the loss, so the node that computes the
 * losses of the rows needs no gradient. */
static void backward(struct tnn_gradients * g, struct ggml_tensor * node, struct ggml_tensor * grad) {
    struct ggml_tensor * logits = node->src[0]->src[0];
    struct ggml_tensor * args[] = { logits, node->src[1], node->src[2] };
    (void) grad;
    tnn__add_gradient(g, logits, &CROSS_ENTROPY_BACK, tnn__kernel_of(node)->params, args, tnn__n_operands(node));
}

static const struct tnn_kernel_type CROSS_ENTROPY = {
    .name = "CROSS_ENTROPY", .run = run_mean, .backward = backward, .differentiable = TNN_OPERAND(0), .is_loss = true,
    .check = check_divisor, .params_size = sizeof(int32_t),
};
static const struct tnn_kernel_type CROSS_ENTROPY_ROWS = {
    .name = "CROSS_ENTROPY_ROWS", .run = run_rows, .part_of = &CROSS_ENTROPY, .differentiable = TNN_OPERAND(0), .check = check_targets,
    .params_size = sizeof(int32_t),
};

/* Returns an operand that must be an f32 input with one element, whose value is known before the graph runs. */
static struct ggml_tensor * divisor_operand(tnn_session * s, tnn_tensor h) {
    struct ggml_tensor * t = tnn__f32_operand(s, "divisor", h);
    if (t != NULL && (ggml_nelements(t) != 1 || !tnn__entry_of(s, t)->is_input)) {
        tnn__fail(s, TNN_E_VALUE, "divisor has shape %s, but it must be an input of shape [1]", tnn__shape(t));
        return NULL;
    }
    return t;
}

tnn_tensor tnn_fused_cross_entropy(tnn_session * s, tnn_tensor logits, tnn_tensor targets, int32_t ignore_id, tnn_tensor divisor) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * tl = tnn__rows_operand(s, "logits", logits);
    struct ggml_tensor * tt = tl != NULL ? tnn__index_operand(s, "targets", targets) : NULL;
    if (tt == NULL) {
        return 0;
    }
    if (tt->ne[0] != tl->ne[1]) {
        tnn__fail(s, TNN_E_VALUE, "targets has shape %s, but it must have one element for each row of logits, of "
                                  "shape %s", tnn__shape(tt), tnn__shape(tl));
        return 0;
    }
    if (ignore_id >= 0 && ignore_id < tl->ne[0]) {
        tnn__fail(s, TNN_E_VALUE, "ignore_id = %d is a token of the vocabulary of %lld; use a negative number",
                  (int) ignore_id,
                  (long long) tl->ne[0]);
        return 0;
    }
    struct ggml_tensor * td = divisor != 0 ? divisor_operand(s, divisor) : NULL;
    if ((divisor != 0 && td == NULL) || !tnn__reserve_nodes(s, 2)) {
        return 0;
    }
    struct ggml_tensor * args[] = { tl, tt, td };
    args[0] = tnn__kernel_node(s, &CROSS_ENTROPY_ROWS, &ignore_id, tl->ne[1], 1, args, 2);
    if (args[0] == NULL) {
        return 0;
    }
    ggml_set_name(args[0], "row losses");
    return tnn__handle(s, tnn__kernel_node(s, &CROSS_ENTROPY, &ignore_id, 1, 1, args, td != NULL ? 3 : 2));
}
