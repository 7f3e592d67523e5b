/* ops/cross_entropy.c - the loss as ggml reduces it with four threads, whatever number of threads computes it.
 *
 * ggml's CROSS_ENTROPY_LOSS adds the rows of each thread's share and then the shares: the scalar depends on the number of
 * threads. Rows, their order in a share and the arithmetic below are ggml's, with the shares fixed at four - ggml's default
 * number of threads, and the reference's. The gradient (CROSS_ENTROPY_LOSS_BACK) has no such sum: ggml's op stays.
 *
 * A loss node is a CROSS_ENTROPY_LOSS while ggml expands the backward, and a CUSTOM node from the moment the graph is
 * allocated: the same tensor, operands and place, another kernel.
 */
#include "session.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "ggml-impl.h"
#include "vec.h"

#define SHARES GGML_DEFAULT_N_THREADS

struct tnn_loss {
    struct tnn_loss    * next;
    struct ggml_tensor * node;
    float              * row;             /* SHARES rows of scratch */
    float                sums[SHARES];
    atomic_int           threads_done;
};

/* Sum over one share's rows of sum(labels * log_softmax(logits)). */
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
    struct tnn_loss          * loss   = userdata;
    const struct ggml_tensor * logits = dst->src[0];
    const struct ggml_tensor * labels = dst->src[1];
    for (int share = ith; share < SHARES; share += nth) {
        loss->sums[share] = share_sum(logits, labels, loss->row + (size_t) share * (size_t) logits->ne[0], share);
    }
    /* The last thread to arrive adds the shares, in their order. */
    if (atomic_fetch_add(&loss->threads_done, 1) == nth - 1) {
        atomic_store(&loss->threads_done, 0);
        float * out = dst->data;
        ggml_vec_sum_f32(SHARES, out, loss->sums);
        out[0] *= -1.0f / (float) ggml_nrows(logits);
    }
}

bool tnn__loss_add(tnn_session * s, struct ggml_tensor * node) {
    struct tnn_loss * loss = calloc(1, sizeof(*loss));
    if (loss == NULL) {
        tnn__fail(s, TNN_E_MEMORY, "no memory for a loss");
        return false;
    }
    loss->row = tnn__aligned_alloc(s, (size_t) SHARES * (size_t) node->src[0]->ne[0] * sizeof(float), "the rows of a loss");
    if (loss->row == NULL) {
        free(loss);
        return false;
    }
    atomic_init(&loss->threads_done, 0);
    loss->node = node;
    loss->next = s->losses;
    s->losses  = loss;
    return true;
}

void tnn__losses_seal(tnn_session * s) {
    for (struct tnn_loss * loss = s->losses; loss != NULL; loss = loss->next) {
        const struct ggml_custom_op_params params = { .fun = reduce, .n_tasks = SHARES, .userdata = loss };
        loss->node->op = GGML_OP_CUSTOM;
        memcpy(loss->node->op_params, &params, sizeof(params));
    }
}

bool tnn__is_loss_node(const struct ggml_tensor * node) {
    struct ggml_custom_op_params params;
    memcpy(&params, node->op_params, sizeof(params));
    return node->op == GGML_OP_CROSS_ENTROPY_LOSS || (node->op == GGML_OP_CUSTOM && params.fun == reduce);
}

void tnn__losses_free(tnn_session * s) {
    for (struct tnn_loss * loss = s->losses, * next; loss != NULL; loss = next) {
        next = loss->next;
        free(loss->row);
        free(loss);
    }
    s->losses = NULL;
}
