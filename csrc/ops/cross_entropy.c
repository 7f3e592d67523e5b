/* ops/cross_entropy.c - cross entropy on labels. At any number of threads, the result has the same bits as ggml's
 * result with four threads.
 *
 * ggml's CROSS_ENTROPY_LOSS adds up the rows of each thread's share and then the shares, so its result depends on the
 * number of threads. The rows of a share, their order and the arithmetic below are ggml's, but there are always four
 * shares, because four is the default number of threads of ggml and of the Ruby project toy. The gradient
 * (CROSS_ENTROPY_LOSS_BACK) contains no such sum, so ggml computes it.
 *
 * A loss node is a CROSS_ENTROPY_LOSS while ggml expands the backward pass. When its graph is realized, it becomes a
 * CUSTOM node with the same tensor, operands and place, but another function.
 */
#include "ops/cross_entropy.h"

#include "memory/allocate.h"
#include "ops/operands.h"
#include "ops/rules.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "ggml-impl.h"
#include "vec.h"

#define SHARES GGML_DEFAULT_N_THREADS

struct loss {
    float               sums[SHARES];
    atomic_int          threads_done;
    _Alignas(64) float  rows[]; /* SHARES rows of scratch memory */
};

/* Returns the sum over the rows of one share of sum(labels * log_softmax(logits)). */
static float share_sum(const struct ggml_tensor * logits, const struct ggml_tensor * labels, float * st, int share) {
    const int64_t nc  = logits->ne[0];
    const int64_t nr  = ggml_nrows(logits);
    const int64_t dr  = (nr + SHARES - 1) / SHARES;
    const int64_t end = dr * (share + 1) < nr ? dr * (share + 1) : nr;
    float sum = 0.0f;
    for (int64_t r = dr * share; r < end; r++) {
        const float * x   = (const float *) ((const char *) logits->data + (size_t) r * logits->nb[1]);
        const float * y   = (const float *) ((const char *) labels->data + (size_t) r * labels->nb[1]);
        float         max = -INFINITY;
        ggml_vec_max_f32((int) nc, &max, x);
        const ggml_float log_sum = ggml_vec_log_soft_max_f32((int) nc, st, x, max);
        ggml_vec_add1_f32((int) nc, st, st, (float) -log_sum);
        ggml_vec_mul_f32((int) nc, st, st, y);
        float row = 0.0f;
        ggml_vec_sum_f32((int) nc, &row, st);
        sum += row;
    }
    return sum;
}

static void reduce(struct ggml_tensor * dst, int ith, int nth, void * userdata) {
    struct loss              * loss   = userdata;
    const struct ggml_tensor * logits = dst->src[0];
    const struct ggml_tensor * labels = dst->src[1];
    for (int share = ith; share < SHARES; share += nth) {
        loss->sums[share] = share_sum(logits, labels, loss->rows + (size_t) share * (size_t) logits->ne[0], share);
    }
    /* The thread that finishes last adds the shares, in their order. */
    if (atomic_fetch_add(&loss->threads_done, 1) == nth - 1) {
        atomic_store(&loss->threads_done, 0);
        float * out = dst->data;
        ggml_vec_sum_f32(SHARES, out, loss->sums);
        out[0] *= -1.0f / (float) ggml_nrows(logits);
    }
}

/* ------------------------------------------------------------------ the operator */

tnn_tensor tnn_cross_entropy_loss(tnn_session * s, tnn_tensor logits, tnn_tensor labels) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * x = tnn__f32_operand(s, "logits", logits);
    struct ggml_tensor * y = x != NULL ? tnn__f32_operand(s, "labels", labels) : NULL;
    if (y == NULL) {
        return 0;
    }
    if (!ggml_are_same_shape(x, y)) {
        tnn__fail(s, TNN_E_VALUE, "labels has shape %s, but it must have the shape of logits, %s",
                  tnn__shape(y), tnn__shape(x));
        return 0;
    }
    if (!tnn__reserve_nodes(s, 1)) {
        return 0;
    }
    struct loss * loss = tnn__graph_alloc(s, sizeof(*loss) + (size_t) SHARES * (size_t) x->ne[0] * sizeof(float), "the rows of a loss");
    if (loss == NULL) {
        return 0;
    }
    atomic_init(&loss->threads_done, 0);
    struct ggml_tensor * node = ggml_cross_entropy_loss(s->ctx_c, x, y);
    const struct ggml_custom_op_params params = { .fun = reduce, .n_tasks = SHARES, .userdata = loss };
    /* CROSS_ENTROPY_LOSS does not read op_params; the CUSTOM node that tnn__losses_seal makes reads them. */
    memcpy(node->op_params, &params, sizeof(params));
    return tnn__appended(s, 1, node);
}

void tnn__losses_seal(const struct ggml_cgraph * graph) {
    for (int i = 0; i < graph->n_nodes; i++) {
        if (graph->nodes[i]->op == GGML_OP_CROSS_ENTROPY_LOSS) {
            graph->nodes[i]->op = GGML_OP_CUSTOM;
        } else if (tnn__is_detach(graph->nodes[i])) {
            graph->nodes[i]->op = GGML_OP_CONT;
        }
    }
}

bool tnn__is_loss_node(const struct ggml_tensor * node) {
    struct ggml_custom_op_params params;
    memcpy(&params, node->op_params, sizeof(params));
    return node->op == GGML_OP_CROSS_ENTROPY_LOSS || (node->op == GGML_OP_CUSTOM && params.fun == reduce);
}

/* ------------------------------------------------------------------ derivative */

static const char * refuses_labels(const struct tnn_grad_needs * g, const struct ggml_tensor * t) {
    return tnn__grad_needed(g, t->src[1]) ? "its labels depend on a parameter" : NULL;
}

const struct tnn_op_rule tnn__cross_entropy_rules[] = {
    { .op = GGML_OP_CROSS_ENTROPY_LOSS, .differentiable = true, .refuses = refuses_labels },
    { .op = GGML_OP_NONE },
};
