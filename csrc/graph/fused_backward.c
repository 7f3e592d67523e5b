/* graph/fused_backward.c - the backward of a fused graph, written out by the shim, and the order of its optimizer steps. */
#include "kernels/kernel.h"

#include <stdlib.h>
#include <string.h>

#include "ggml-impl.h"

/* ------------------------------------------------------------------ what can be differentiated */

static struct ggml_tensor * loss_of(const struct ggml_cgraph * graph) {
    for (int i = graph->n_nodes - 1; i >= 0; i--) {
        if (graph->nodes[i]->flags & GGML_TENSOR_FLAG_LOSS) {
            return graph->nodes[i];
        }
    }
    return NULL;
}

/* Operands that a gradient can flow to: 0..n-1 of src, less those that are indices or tables. */
static bool differentiable_operand(const tnn_session * s, const struct tnn_kernel * k, const struct ggml_tensor * t, int j) {
    const struct tnn_kernel * from = tnn__kernel_of(s, t->src[j]);
    if (from != NULL && from->kind == TNN_K_CROSS_ENTROPY_ROWS) {
        return k != NULL && k->kind == TNN_K_CROSS_ENTROPY; /* which differentiates both at once */
    }
    if (k != NULL) {
        switch (k->kind) {
            case TNN_K_LINEAR:
            case TNN_K_RMS_NORM:
            case TNN_K_SWIGLU:
                return true;
            case TNN_K_ATTENTION: /* tables follow */
            case TNN_K_CROSS_ENTROPY: /* targets follow */
            case TNN_K_CROSS_ENTROPY_ROWS:
                return j == 0;
            default:
                return false;
        }
    }
    return t->op == GGML_OP_ADD || j == 0; /* GET_ROWS: its table */
}

static bool known(const struct tnn_kernel * k, const struct ggml_tensor * t) {
    if (k != NULL) {
        return k->kind == TNN_K_LINEAR || k->kind == TNN_K_RMS_NORM || k->kind == TNN_K_SWIGLU || k->kind == TNN_K_ATTENTION
            || k->kind == TNN_K_CROSS_ENTROPY_ROWS || k->kind == TNN_K_CROSS_ENTROPY;
    }
    return t->op == GGML_OP_NONE || t->op == GGML_OP_GET_ROWS
        || (t->op == GGML_OP_ADD && ggml_are_same_shape(t->src[0], t->src[1]));
}

/* needed[slot]: the tensor has a gradient. Allocated here, freed by the caller; NULL with an error. */
static bool * find_needed(tnn_session * s, const struct ggml_cgraph * graph) {
    bool * needed = calloc(graph->visited_hash_set.size, sizeof(bool));
    if (needed == NULL) {
        tnn__fail(s, TNN_E_MEMORY, "no memory to differentiate a graph of %d nodes", graph->n_nodes);
        return NULL;
    }
    for (int i = 0; i < graph->n_nodes; i++) {
        const struct ggml_tensor * t    = graph->nodes[i];
        bool                       need = (t->flags & GGML_TENSOR_FLAG_PARAM) != 0;
        for (int j = 0; j < tnn__n_operands(t); j++) {
            need = need || needed[ggml_hash_find(&graph->visited_hash_set, t->src[j])];
        }
        needed[ggml_hash_find(&graph->visited_hash_set, t)] = need;
    }
    return needed;
}

int tnn__fused_check(tnn_session * s, const struct ggml_cgraph * gf) {
    bool * needed = find_needed(s, gf);
    int    rc     = needed != NULL ? TNN_OK : s->code;
    for (int i = 0; i < gf->n_nodes && rc == TNN_OK; i++) {
        const struct ggml_tensor * t = gf->nodes[i];
        const struct tnn_kernel  * k = tnn__kernel_of(s, t);
        if ((t->flags & GGML_TENSOR_FLAG_LOSS) && t != loss_of(gf)) {
            rc = tnn__fail(s, TNN_E_STATE, "two nodes are flagged as losses; a fused graph has one");
        }
        if (rc != TNN_OK || !needed[ggml_hash_find(&gf->visited_hash_set, t)]) {
            continue;
        }
        if (!known(k, t)) {
            rc = tnn__fail(s, TNN_E_VALUE, "node %s (%s) lies between a parameter and the loss, but has no derivative in a fused graph: "
                           "use the fused operators, tnn_get_rows and tnn_add of equal shapes", ggml_get_name(t),
                           k != NULL ? tnn__kernel_name(k) : ggml_op_desc(t));
        }
        if (k != NULL && k->kind == TNN_K_CROSS_ENTROPY && !(t->flags & GGML_TENSOR_FLAG_LOSS)) {
            rc = tnn__fail(s, TNN_E_STATE, "node %s is a cross entropy that depends on a parameter, but not the loss", ggml_get_name(t));
        }
        for (int j = 0; rc == TNN_OK && j < tnn__n_operands(t); j++) {
            if (needed[ggml_hash_find(&gf->visited_hash_set, t->src[j])] && !differentiable_operand(s, k, t, j)) {
                rc = tnn__fail(s, TNN_E_VALUE, "operand %d of node %s depends on a parameter, but no gradient flows to it", j,
                               ggml_get_name(t));
            }
        }
    }
    if (rc == TNN_OK && !needed[ggml_hash_find(&gf->visited_hash_set, loss_of(gf))]) {
        rc = tnn__fail(s, TNN_E_STATE, "no parameter leads to the loss %s; flag the trainable tensors with tnn_set_param "
                                       "before the forward graph is built", ggml_get_name(loss_of(gf)));
    }
    free(needed);
    return rc;
}

/* ------------------------------------------------------------------ the backward */

struct walk {
    tnn_session        * s;
    struct ggml_cgraph * gb;
    const bool         * needed; /* by slot of gf's hash set */
    struct ggml_cgraph * gf;
    bool                 failed;
};

static bool needs(const struct walk * w, const struct ggml_tensor * t) {
    return w->needed[ggml_hash_find(&w->gf->visited_hash_set, t)];
}

static struct ggml_tensor ** grad_slot(const struct walk * w, const struct ggml_tensor * t) {
    return &w->gb->grads[ggml_hash_find(&w->gb->visited_hash_set, t)];
}

/* Appends a kernel node, of t's shape or in the place of args[0], that computes a gradient of t; NULL where memory ended. */
static struct ggml_tensor * emit(struct walk * w, const struct ggml_tensor * t, const struct tnn_kernel * like, bool in_place,
                                 struct ggml_tensor ** args, int n_args) {
    struct ggml_tensor * node = w->failed ? NULL : tnn__kernel_node(w->s, like, in_place ? 0 : t->ne[0], t->ne[1], args, n_args);
    if (node == NULL) {
        w->failed = true;
        return NULL;
    }
    ggml_format_name(node, "grad of %.50s", ggml_get_name(t));
    ggml_build_forward_expand(w->gb, node);
    return node;
}

/* The gradient of an activation: what kernel computes over args, on top of what is there. */
static void add_to_activation(struct walk * w, struct ggml_tensor * t, struct tnn_kernel like, struct ggml_tensor ** args, int n_args) {
    struct ggml_tensor * before = *grad_slot(w, t);
    if (before != NULL) {
        like.has_add   = true;
        args[n_args++] = before;
    }
    *grad_slot(w, t) = emit(w, t, &like, false, args, n_args);
}

/* A gradient that exists already becomes t's, or is added to it: an addend's, that of the sum itself. */
static void pass_on(struct walk * w, struct ggml_tensor * t, struct ggml_tensor * grad) {
    struct ggml_tensor * before = *grad_slot(w, t);
    if (grad == NULL) {
        return; /* no memory */
    }
    if (before == NULL) {
        *grad_slot(w, t) = grad;
        return;
    }
    struct ggml_tensor * sum = ggml_add(w->s->ctx_c, before, grad);
    w->s->n_tensors_c++;
    ggml_build_forward_expand(w->gb, sum);
    *grad_slot(w, t) = sum;
}

/* The gradient of a weight, a table, a gamma or a bias: what kernel computes over args, in the place of what is there if that is
 * this tensor's own. */
static void add_to_parameter(struct walk * w, struct ggml_tensor * t, struct tnn_kernel like, struct ggml_tensor ** args, int n_args) {
    struct ggml_tensor * before = *grad_slot(w, t);
    like.gradient_of = t;
    if (before != NULL && (tnn__kernel_of(w->s, before) == NULL || tnn__kernel_of(w->s, before)->gradient_of != t)) {
        pass_on(w, t, emit(w, t, &like, false, args, n_args));
        return;
    }
    struct ggml_tensor * in_place[GGML_MAX_SRC];
    int n = 0;
    if (before != NULL) {
        in_place[n++]  = before;
        like.continues = true;
    }
    for (int i = 0; i < n_args; i++) {
        in_place[n++] = args[i];
    }
    *grad_slot(w, t) = emit(w, t, &like, before != NULL, in_place, n);
}

static void linear_back(struct walk * w, struct ggml_tensor * t, const struct tnn_kernel * k, struct ggml_tensor * grad) {
    const int n = k->n_weights;
    struct ggml_tensor * x = t->src[0];
    if (k->has_add && needs(w, t->src[1 + n * (k->has_bias ? 2 : 1)])) {
        pass_on(w, t->src[1 + n * (k->has_bias ? 2 : 1)], grad);
    }
    if (needs(w, x)) {
        struct ggml_tensor * args[GGML_MAX_SRC] = { grad };
        memcpy(&args[1], &t->src[1], (size_t) n * sizeof(args[0]));
        add_to_activation(w, x, (struct tnn_kernel) { .kind = TNN_K_LINEAR_BACK_X, .n_weights = n, .scratch = k->scratch },
                          args, 1 + n);
    }
    int64_t column = 0;
    for (int i = 0; i < n; i++) {
        struct ggml_tensor * weight = t->src[1 + i];
        struct ggml_tensor * bias   = k->has_bias ? t->src[1 + n + i] : NULL;
        struct ggml_tensor * args[] = { grad, x };
        if (needs(w, weight)) {
            add_to_parameter(w, weight, (struct tnn_kernel) { .kind = TNN_K_LINEAR_BACK_W, .column = column, .scratch = k->scratch },
                             args, 2);
        }
        if (bias != NULL && needs(w, bias)) {
            add_to_parameter(w, bias, (struct tnn_kernel) { .kind = TNN_K_LINEAR_BACK_BIAS, .column = column }, args, 1);
        }
        column += weight->ne[1];
    }
}

static void node_back(struct walk * w, struct ggml_tensor * t, struct ggml_tensor * grad) {
    const struct tnn_kernel * k = tnn__kernel_of(w->s, t);
    if (k == NULL) {
        if (t->op == GGML_OP_ADD) {
            for (int j = 0; j < 2; j++) {
                if (needs(w, t->src[j])) {
                    pass_on(w, t->src[j], grad);
                }
            }
        } else { /* GET_ROWS */
            struct ggml_tensor * args[] = { grad, t->src[1] };
            add_to_parameter(w, t->src[0], (struct tnn_kernel) { .kind = TNN_K_EMBEDDING_BACK }, args, 2);
        }
        return;
    }
    switch (k->kind) {
        case TNN_K_LINEAR:
            linear_back(w, t, k, grad);
            break;
        case TNN_K_RMS_NORM: {
            struct ggml_tensor * args[GGML_MAX_SRC] = { grad, t->src[0], t->src[1] };
            if (needs(w, t->src[1])) {
                add_to_parameter(w, t->src[1], (struct tnn_kernel) { .kind = TNN_K_RMS_NORM_BACK_GAMMA, .eps = k->eps }, args, 2);
            }
            if (needs(w, t->src[0])) {
                add_to_activation(w, t->src[0], (struct tnn_kernel) { .kind = TNN_K_RMS_NORM_BACK_X, .eps = k->eps, .replaces = TNN_REPLACES_SRC0 }, args, 3);
            }
            break;
        }
        case TNN_K_SWIGLU: {
            struct ggml_tensor * args[] = { grad, t->src[0] };
            struct ggml_tensor * x      = t->src[0];
            pass_on(w, x, emit(w, x, &(struct tnn_kernel) { .kind = TNN_K_SWIGLU_BACK, .replaces = TNN_REPLACES_SRC1 }, false, args, 2));
            break;
        }
        case TNN_K_ATTENTION: {
            struct tnn_kernel    like   = *k;
            struct ggml_tensor * args[] = { grad, t->src[0], t->src[1] };
            struct ggml_tensor * x      = t->src[0];
            like.kind        = TNN_K_ATTENTION_BACK;
            like.replaces = TNN_REPLACES_NOTHING;
            pass_on(w, x, emit(w, x, &like, false, args, 3));
            break;
        }
        case TNN_K_CROSS_ENTROPY: { /* of the loss itself: through its rows at once */
            struct ggml_tensor * logits = t->src[0]->src[0];
            struct ggml_tensor * args[] = { logits, t->src[1] };
            struct tnn_kernel    like   = { .kind = TNN_K_CROSS_ENTROPY_BACK, .ignore_id = k->ignore_id, .replaces = TNN_REPLACES_SRC0 };
            pass_on(w, logits, emit(w, logits, &like, false, args, 2));
            break;
        }
        default: /* CROSS_ENTROPY_ROWS: done with its loss */
            break;
    }
}

/* gb starts as a copy of gf. Where memory ends, what was appended stays unused and the call can be made again. */
int tnn__fused_backward(tnn_session * s) {
    bool * needed = find_needed(s, s->gf);
    if (needed == NULL) {
        return s->code;
    }
    struct walk w = { .s = s, .gb = s->gb, .gf = s->gf, .needed = needed, .failed = false };
    for (int i = s->gf->n_nodes - 1; i >= 0 && !w.failed; i--) {
        struct ggml_tensor * t    = s->gf->nodes[i];
        struct ggml_tensor * grad = *grad_slot(&w, t);
        const bool           loss = (t->flags & GGML_TENSOR_FLAG_LOSS) != 0;
        if (needs(&w, t) && (grad != NULL || loss) && t->op != GGML_OP_NONE) {
            node_back(&w, t, grad);
        }
    }
    free(needed);
    return w.failed ? s->code : TNN_OK;
}

/* ------------------------------------------------------------------ when the optimizer steps */

static bool is_step(const tnn_session * s, const struct ggml_tensor * node) {
    const struct tnn_kernel * k = tnn__kernel_of(s, node);
    return node->op == GGML_OP_OPT_STEP_ADAMW || node->op == GGML_OP_OPT_STEP_SGD || (k != NULL && k->kind == TNN_K_ADAMW);
}

static const struct ggml_tensor * memory_of(const struct ggml_tensor * t) {
    return t->view_src != NULL ? t->view_src : t;
}

/* Stepping a weight as soon as nobody reads it any more lets its gradient's memory go to the next: the step's memory is that of
 * one gradient instead of all. No bit changes: each step reads the same gradient and writes only w, m and v. */
int tnn__fused_schedule(tnn_session * s, struct ggml_cgraph * graph) {
    const int n = graph->n_nodes;
    int * last  = malloc(graph->visited_hash_set.size * sizeof(*last)); /* by slot: the last node that reads or writes this memory */
    int * after = malloc((size_t) n * 3 * sizeof(*after));              /* of each optimizer step: the node it follows */
    struct ggml_tensor ** order = malloc((size_t) n * sizeof(*order));
    int rc = TNN_OK;
    if (last == NULL || after == NULL || order == NULL) {
        rc = tnn__fail(s, TNN_E_MEMORY, "no memory to order a graph of %d nodes", n);
        goto done;
    }
    int * const first = after + n, * const next = first + n;
    for (size_t i = 0; i < graph->visited_hash_set.size; i++) {
        last[i] = -1;
    }
    for (int i = 0; i < n; i++) {
        const struct ggml_tensor * t = graph->nodes[i];
        first[i] = -1;
        if (is_step(s, t)) {
            continue;
        }
        for (int j = 0; j < tnn__n_operands(t); j++) {
            if (is_step(s, t->src[j])) {
                goto done; /* somebody reads a stepped weight: the order stays the caller's */
            }
        }
        last[ggml_hash_find(&graph->visited_hash_set, memory_of(t))] = i;
        for (int j = 0; j < tnn__n_operands(t); j++) {
            last[ggml_hash_find(&graph->visited_hash_set, memory_of(t->src[j]))] = i;
        }
    }
    for (int i = 0; i < n; i++) {
        const struct ggml_tensor * t = graph->nodes[i];
        after[i] = -1;
        for (int j = 0; is_step(s, t) && j < tnn__n_operands(t); j++) {
            const int at = last[ggml_hash_find(&graph->visited_hash_set, memory_of(t->src[j]))];
            after[i] = at > after[i] ? at : after[i];
        }
    }
    for (int k = n - 1; k >= 0; k--) { /* lists of the steps that follow each node, in their order */
        if (after[k] >= 0) {
            next[k]         = first[after[k]];
            first[after[k]] = k;
        }
    }
    int n_order = 0;
    for (int i = 0; i < n; i++) {
        if (!is_step(s, graph->nodes[i])) {
            order[n_order++] = graph->nodes[i];
            for (int k = first[i]; k >= 0; k = next[k]) {
                order[n_order++] = graph->nodes[k];
            }
        }
    }
    if (n_order == n) {
        memcpy(graph->nodes, order, (size_t) n * sizeof(*order));
    } else {
        rc = tnn__fail(s, TNN_E_INTERNAL, "%d of %d nodes could be ordered", n_order, n);
    }
done:
    free(last);
    free(after);
    free(order);
    return rc;
}
