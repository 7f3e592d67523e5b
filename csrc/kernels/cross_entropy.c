/* kernels/cross_entropy.c - cross entropy on target ids: the mean over the rows whose target is not the ignored id.
 *
 * Within rounding, the result is that of CROSS_ENTROPY_LOSS on one-hot labels, but a target is one number instead of a
 * row of labels. The logits are an operand (tnn_fused_cross_entropy), or the rows are divided into parts, and the logits of
 * one part after another are computed (tnn_fused_output_loss). The memory of a part is free before the next part is
 * computed.
 */
#include "kernels/cross_entropy.h"

#include "graph/gradients.h"
#include "kernels/logits.h"
#include "kernels/parts.h"
#include "kernels/row_loops.h"
#include "ops/operands.h"

#include "ggml-impl.h"

struct rows {
    int64_t first;  /* the row of the targets that belongs to row 0 of the logits */
    int32_t ignore; /* the target id that is ignored */
    int64_t sequence; /* rows of a sequence, if the gradients have a weight for each sequence; otherwise 0 */
    float   z; /* the coefficient of the z-loss, which only the nodes of gradients use */
};

/* Computes -log softmax(x)[target] of each row of the logits, and 0 if the target is ignored. The first node creates
 * the tensor with the losses of all rows, and later nodes write the losses of their rows to it. Operands: [losses of
 * earlier rows,] logits, targets. */
static void run_rows(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    (void) scratch;
    const struct rows        * p      = k->params;
    const struct ggml_tensor * logits = tnn__operand(k, dst, 0);
    const int64_t   n      = logits->ne[0];
    const int32_t * target = (const int32_t *) tnn__operand(k, dst, 1)->data + p->first;
    float         * loss   = (float *) dst->data + p->first;
    int64_t begin, end;
    tnn__part(logits->ne[1], 1, ith, nth, &begin, &end);
    for (int64_t row = begin; row < end; row++) {
        if (target[row] == p->ignore) {
            loss[row] = 0.0f;
            continue;
        }
        const float * x   = tnn__data(logits) + row * n;
        const float   max = tnn__row_max(x, n);
        loss[row] = (float) (log((double) tnn__exp_sum(x, n, max, NULL)) + (double) max - (double) x[target[row]]);
    }
}

/* Returns the number of targets that are not ignored. */
static int64_t count_targets(const struct tnn_kernel * k, const struct ggml_tensor * targets) {
    const int32_t   ignore = ((const struct rows *) k->params)->ignore;
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

double tnn__sum_of_losses(const float * losses, int64_t n, int64_t windows) {
    const int64_t rows = n / windows;
    /* nodes[level]: the node of this level whose right half is not complete yet (the tree of kernels/window_sums.h) */
    double        nodes[TNN_LEVELS];
    double        sum = 0.0;
    for (int64_t window = 0; window < windows; window++) {
        sum = 0.0;
        for (int64_t row = window * rows; row < (window + 1) * rows; row++) {
            sum += (double) losses[row];
        }
        int level = 0;
        for (; (window >> level & 1) != 0; level++) {
            sum = nodes[level] + sum;
        }
        nodes[level] = sum;
    }
    /* Each bit of `windows` that is 1 stands for a complete node, at the level of this bit. `sum` is already the
     * node of the lowest of these bits, and the nodes of the higher bits are added to it. */
    for (int level = 0, lowest = 1; windows >> level > 0; level++) {
        if ((windows >> level & 1) != 0) {
            sum    = lowest ? sum : nodes[level] + sum;
            lowest = 0;
        }
    }
    return sum;
}

/* Computes the sum of the rows' losses, and divides the sum. Operands: losses of the rows, targets, [divisor]. */
static void run_mean(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    (void) nth;
    (void) scratch;
    if (ith != 0) {
        return;
    }
    const double sum = tnn__sum_of_losses(tnn__data(dst->src[0]), dst->src[0]->ne[0], k->s->windows.n);
    *(float *) dst->data = (float) (sum / divisor_of(k, dst->src[1], dst->src[2]));
}

/* Returns the weights of the sequences, which are the last two rows of [sequences / 2, 3]. */
static const float * weights_of(const struct ggml_tensor * pairs) {
    return tnn__data(pairs) + pairs->ne[0];
}

/* Computes dlogits = weight ((1 + 2 z lse) softmax(x) - one-hot) with lse = log(sum(exp(x))), and 0 if the target is
 * ignored. z is the coefficient of the z-loss. The weight is 1 / divisor, or the weight of the sequence to which the
 * row belongs. Operands: logits, targets, losses of the rows, which were computed from the same logits, [divisor, or
 * the result of PREFERENCE_PAIRS]. */
static void run_back(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    (void) scratch;
    const struct rows * p  = k->params;
    const int64_t   n      = dst->ne[0];
    const int32_t * target = (const int32_t *) dst->src[1]->data + p->first;
    const float     mean   = p->sequence == 0 ? 1.0f / (float) divisor_of(k, dst->src[1], dst->src[3]) : 0.0f;
    int64_t begin, end;
    tnn__part(dst->ne[1], 1, ith, nth, &begin, &end);
    for (int64_t row = begin; row < end; row++) {
        const float weight = p->sequence == 0 ? mean : weights_of(dst->src[3])[(p->first + row) / p->sequence];
        const float * x = tnn__data(dst->src[0]) + row * n;
        float       * g = (float *) dst->data + row * n; /* g may be the same memory as the logits */
        if (target[row] == p->ignore) {
            memset(g, 0, (size_t) n * sizeof(float));
            continue;
        }
        const float max   = tnn__row_max(x, n);
        const float sum   = tnn__exp_sum(x, n, max, g);
        float       scale = weight / sum;
        if (p->z != 0.0f) {
            scale *= (float) (1.0 + 2.0 * (double) p->z * (log((double) sum) + (double) max));
        }
        for (int64_t i = 0; i < n; i++) {
            g[i] *= scale;
        }
        g[target[row]] -= weight;
    }
}

/* Checks that each target of the rows is a token or the ignored id. */
static int check_targets(tnn_session * s, const struct tnn_kernel * k, const struct ggml_tensor * node) {
    const struct rows        * p      = k->params;
    const struct ggml_tensor * logits = tnn__operand(k, node, 0), * targets = tnn__operand(k, node, 1);
    const int64_t   vocab  = logits->ne[0];
    const int32_t * values = targets->data;
    for (int64_t i = p->first; i < p->first + logits->ne[1]; i++) {
        if (values[i] != p->ignore && (values[i] < 0 || values[i] >= vocab)) {
            return tnn__fail(s, TNN_E_VALUE, "targets %s[%lld] = %d must be between 0 and %lld, or ignore_id = %d",
                             ggml_get_name(targets),
                             (long long) i, (int) values[i], (long long) vocab - 1, (int) p->ignore);
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
                         ggml_get_name(targets), (int) ((const struct rows *) k->params)->ignore);
    }
    return TNN_OK;
}

static const struct tnn_kernel_type CROSS_ENTROPY_BACK = {
    .name = "CROSS_ENTROPY_BACK", .run = run_back, .in_place = TNN_OPERAND(0), .order_only = TNN_OPERAND(2), .at_once = true,
    .params_size = sizeof(struct rows),
};

/* Appends the gradients of all logits, in the order of the rows. If the logits exist only in parts, the gradient of a
 * part is followed directly by the gradients of x and of the weight that use it. So only one part is in memory at a time.
 * rows: the node that computes the losses of the rows; if each of several nodes computes the losses of some rows, the
 * last of these nodes. divisor: as for tnn_fused_cross_entropy, or NULL. z: the coefficient of the z-loss. */
static void rows_backward(struct tnn_gradients * g, struct ggml_tensor * rows, struct ggml_tensor * divisor, float z) {
    const struct tnn_kernel * k = tnn__kernel_of(rows);
    if (k->continues) {
        rows_backward(g, rows->src[0], divisor, z);
    }
    struct rows params = *(const struct rows *) k->params;
    params.z = z;
    struct ggml_tensor * logits = rows->src[k->continues ? 1 : 0], * targets = rows->src[k->continues ? 2 : 1];
    struct ggml_tensor * args[] = { logits, targets, rows, divisor };
    tnn__add_gradient(g, logits, &CROSS_ENTROPY_BACK, &params, args, divisor != NULL ? 4 : 3);
    if (tnn__is_logits(logits) && !g->failed) {
        tnn__logits_backward(g, logits, tnn__take_gradient(g, logits));
    }
}

void tnn__weighted_backward(struct tnn_gradients * g, struct ggml_tensor * rows, struct ggml_tensor * pairs, int64_t sequence) {
    const struct tnn_kernel * k = tnn__kernel_of(rows);
    if (k->continues) {
        tnn__weighted_backward(g, rows->src[0], pairs, sequence);
    }
    struct ggml_tensor * logits = rows->src[k->continues ? 1 : 0], * targets = rows->src[k->continues ? 2 : 1];
    struct rows          params = *(const struct rows *) k->params;
    const bool           part   = tnn__is_logits(logits);
    if (part && !g->failed) {
        logits    = tnn__logits(g->s, logits->src[0], logits->src[1], params.first, logits->ne[1]);
        g->failed = logits == NULL;
    }
    if (g->failed) {
        return;
    }
    ggml_build_forward_expand(g->gb, logits);
    params.sequence = sequence;
    struct ggml_tensor * args[] = { logits, targets, rows, pairs };
    tnn__add_gradient(g, logits, &CROSS_ENTROPY_BACK, &params, args, 4);
    if (part && !g->failed) {
        tnn__logits_backward(g, logits, tnn__take_gradient(g, logits));
    }
}

/* One node computes the gradient of the logits directly from the gradient of the loss, so the node that computes the
 * losses of the rows needs no gradient. */
static void backward(struct tnn_gradients * g, struct ggml_tensor * node, struct ggml_tensor * grad) {
    (void) grad;
    rows_backward(g, node->src[0], node->src[2], *(const float *) tnn__kernel_of(node)->state);
}

static const struct tnn_kernel_type CROSS_ENTROPY = {
    .name = "CROSS_ENTROPY", .run = run_mean, .backward = backward, .differentiable = TNN_OPERAND(0), .is_loss = true,
    .check = check_divisor, .params_size = sizeof(struct rows), .state_size = sizeof(float), /* the coefficient of the z-loss */
};
static const struct tnn_kernel_type CROSS_ENTROPY_ROWS = {
    .name = "CROSS_ENTROPY_ROWS", .run = run_rows, .part_of = &CROSS_ENTROPY, .differentiable = TNN_OPERAND(0) | TNN_OPERAND(1),
    .check = check_targets, .params_size = sizeof(struct rows),
};

bool tnn__is_cross_entropy(const struct ggml_tensor * t) {
    return tnn__is_kernel(t, &CROSS_ENTROPY);
}

int32_t tnn__ignored_id(const struct ggml_tensor * cross_entropy) {
    return ((const struct rows *) tnn__kernel_of(cross_entropy)->params)->ignore;
}

/* ------------------------------------------------------------------ the calls */

/* The operands of a loss besides the logits. */
struct loss {
    struct ggml_tensor * targets, * divisor; /* divisor may be NULL */
    int32_t              ignore_id;
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

/* Sets the operands of a loss of logits [vocab, rows]. `of` is the operand that has the rows, and arg is its name.
 * Returns false with an error. */
static bool loss_operands(tnn_session * s, struct loss * loss, tnn_tensor targets, int32_t ignore_id, tnn_tensor divisor, int64_t vocab,
                          const char * arg, const struct ggml_tensor * of) {
    loss->ignore_id = ignore_id;
    loss->targets   = tnn__index_operand(s, "targets", targets);
    if (loss->targets == NULL) {
        return false;
    }
    if (loss->targets->ne[0] != of->ne[1]) {
        tnn__fail(s, TNN_E_VALUE, "targets has shape %s, but it must have one element for each row of %s, of shape %s",
                  tnn__shape(loss->targets), arg, tnn__shape(of));
        return false;
    }
    if (ignore_id >= 0 && ignore_id < vocab) {
        tnn__fail(s, TNN_E_VALUE, "ignore_id = %d is a token id of the vocabulary, which has %lld tokens; use a negative number",
                  (int) ignore_id, (long long) vocab);
        return false;
    }
    if (of->ne[1] % s->windows.n != 0) {
        tnn__fail(s, TNN_E_VALUE, "%s has shape %s, but its rows must consist of %lld windows of equal size; "
                                  "tnn_session_set_windows sets the number of windows", arg, tnn__shape(of), (long long) s->windows.n);
        return false;
    }
    loss->divisor = divisor != 0 ? divisor_operand(s, divisor) : NULL;
    return divisor == 0 || loss->divisor != NULL;
}

/* Appends a node that computes losses of rows, from row `first` on. before: the node of the rows before them, or NULL.
 * Returns NULL if memory runs out. */
static struct ggml_tensor * append_rows(tnn_session * s, const struct loss * loss, struct ggml_tensor * logits, int64_t first,
                                        struct ggml_tensor * before) {
    const struct rows    rows   = { .first = first, .ignore = loss->ignore_id };
    struct ggml_tensor * args[] = { before, logits, loss->targets };
    struct ggml_tensor * node   = logits == NULL ? NULL
        : before == NULL ? tnn__kernel_node(s, &CROSS_ENTROPY_ROWS, &rows, loss->targets->ne[0], 1, args + 1, 2)
                         : tnn__kernel_node(s, &CROSS_ENTROPY_ROWS, &rows, 0, 1, args, 3);
    if (node != NULL) {
        tnn__kernel_of(node)->continues = before != NULL;
        ggml_set_name(node, "row losses");
    }
    return node;
}

/* Appends the mean of the rows' losses. rows is NULL if memory ran out. */
static tnn_tensor append_mean(tnn_session * s, const struct loss * loss, struct ggml_tensor * rows) {
    const struct rows    all    = { .ignore = loss->ignore_id };
    struct ggml_tensor * args[] = { rows, loss->targets, loss->divisor };
    struct ggml_tensor * mean   = rows != NULL ? tnn__kernel_node(s, &CROSS_ENTROPY, &all, 1, 1, args, loss->divisor != NULL ? 3 : 2) : NULL;
    if (mean == NULL) {
        return 0;
    }
    *(float *) tnn__kernel_of(mean)->state = 0.0f;
    return tnn__handle(s, mean);
}

tnn_tensor tnn_fused_cross_entropy(tnn_session * s, tnn_tensor logits, tnn_tensor targets, int32_t ignore_id, tnn_tensor divisor) {
    struct ggml_tensor * tl = tnn__enter(s, __func__) ? tnn__rows_operand(s, "logits", logits) : NULL;
    struct loss loss;
    if (tl == NULL || !loss_operands(s, &loss, targets, ignore_id, divisor, tl->ne[0], "logits", tl)) {
        return 0;
    }
    if (tnn__is_logits(tl)) {
        tnn__fail(s, TNN_E_VALUE, "logits is internal to a tnn_fused_output_loss, which already computes the loss; use the "
                                  "result of tnn_fused_linear");
        return 0;
    }
    return tnn__reserve_nodes(s, 2) ? append_mean(s, &loss, append_rows(s, &loss, tl, 0, NULL)) : 0;
}

tnn_tensor tnn_fused_output_loss(tnn_session * s, tnn_tensor x, tnn_tensor weight, tnn_tensor targets, int32_t ignore_id,
                                 tnn_tensor divisor, int64_t part) {
    struct ggml_tensor * tx = tnn__enter(s, __func__) ? tnn__rows_operand(s, "x", x) : NULL;
    struct ggml_tensor * w  = tx != NULL ? tnn__tensor(s, "weight", weight) : NULL;
    struct loss loss;
    if (w == NULL || !tnn__want_matrix_type(s, "weight", w) || !tnn__want_contiguous(s, "weight", w) || !tnn__want_matrix(s, "weight", w)
        || !loss_operands(s, &loss, targets, ignore_id, divisor, w->ne[1], "x", tx)) {
        return 0;
    }
    if (w->ne[0] != tx->ne[0]) {
        tnn__fail(s, TNN_E_VALUE, "weight has shape %s; its ne0 must equal the ne0 of x, of shape %s", tnn__shape(w), tnn__shape(tx));
        return 0;
    }
    if (part < 1) {
        tnn__fail(s, TNN_E_VALUE, "part = %lld is a number of rows and must be at least 1", (long long) part);
        return 0;
    }
    /* a product with bfloat16 operands takes two rows of a window at a time */
    const struct tnn_entry * e = tnn__entry_of(s, w);
    const int64_t unit = e != NULL && e->bf16_products ? 2 : 1;
    const int64_t rows = tx->ne[1], size = tnn__min(part, rows), n_parts = (rows + size - 1) / size;
    if (w->ne[1] > TNN_MAX_ELEMENTS / (size + unit - 1)) {
        tnn__fail_elements(s, "a part of the logits");
        return 0;
    }
    if (!tnn__reserve_nodes(s, (int) tnn__min(2 * n_parts + 1, INT32_MAX))) {
        return 0;
    }
    struct ggml_tensor * losses = NULL;
    for (int64_t first = 0, end; first < rows; first = end) {
        end  = tnn__min(first + size, rows);
        end += end % (rows / s->windows.n) % unit;
        losses = append_rows(s, &loss, tnn__logits(s, tx, w, first, end - first), first, losses);
        if (losses == NULL) {
            return 0;
        }
    }
    return append_mean(s, &loss, losses);
}

int tnn_set_z_loss(tnn_session * s, tnn_tensor cross_entropy, float coefficient) {
    struct ggml_tensor * loss = tnn__enter(s, __func__) ? tnn__tensor(s, "cross_entropy", cross_entropy) : NULL;
    if (loss == NULL) {
        return tnn_last_error_code(s);
    }
    if (!tnn__is_cross_entropy(loss)) {
        return tnn__fail(s, TNN_E_VALUE, "cross_entropy (%s) must be a result of tnn_fused_cross_entropy or tnn_fused_output_loss",
                         ggml_get_name(loss));
    }
    if (!(coefficient >= 0.0f && coefficient < INFINITY)) { /* a NaN makes the first comparison false */
        return tnn__fail(s, TNN_E_VALUE, "coefficient = %g must be finite and at least 0", (double) coefficient);
    }
    if (s->gb != NULL) {
        return tnn__fail(s, TNN_E_STATE, "the backward graph exists already; call tnn_set_z_loss before tnn_build_backward");
    }
    *(float *) tnn__kernel_of(loss)->state = coefficient;
    return TNN_OK;
}
