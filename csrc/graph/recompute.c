/* graph/recompute.c - computes nodes of the forward pass again during the backward pass of a fused graph.
 *
 * Tensors flagged with tnn_set_recompute divide the forward graph into parts. A flagged tensor is kept. The nodes between
 * two flagged tensors exist twice: the forward pass uses the first node, whose memory is free after its last reader, and
 * the gradients use the copy. Both compute the same bits.
 */
#include "graph/recompute.h"

#include "kernels/kernel.h"

#include <string.h>

#include "ggml-impl.h"

static struct ggml_tensor ** slot_of(const struct tnn_gradients * g, const struct ggml_tensor * t) {
    return &g->again[ggml_hash_find(&g->gb->visited_hash_set, t)];
}

/* Returns whether node i is flagged. */
static bool ends_part(const struct tnn_gradients * g, int i) {
    return (g->gf->nodes[i]->flags & TNN_FLAG_RECOMPUTE) != 0;
}

/* Returns whether a node can exist twice: it depends on a parameter, has memory of its own and keeps no state. */
static bool can_copy(const struct tnn_gradients * g, const struct ggml_tensor * t) {
    const struct tnn_kernel * k = tnn__kernel_of(t);
    return tnn__needs_gradient(g, t) && t->op != GGML_OP_NONE && t->view_src == NULL && (k == NULL || k->type->state_size == 0);
}

/* Returns a copy of a node. For each operand that has a copy, the new node reads the copy of the operand. Returns
 * NULL if memory runs out. */
static struct ggml_tensor * copy_of(const struct tnn_gradients * g, struct ggml_tensor * t) {
    const struct tnn_kernel * k = tnn__kernel_of(t);
    const int                 n = tnn__n_operands(t);
    struct ggml_tensor * operands[GGML_MAX_SRC] = { NULL };
    for (int j = 0; j < n; j++) {
        struct ggml_tensor * again = *slot_of(g, t->src[j]);
        operands[j] = again != NULL ? again : t->src[j];
    }
    struct ggml_tensor * copy;
    if (k != NULL) {
        copy = tnn__kernel_node_of(g->s, k->type, k->params, t->type, t->ne, operands, n);
    } else {
        copy = ggml_dup_tensor(g->s->ctx_c, t);
        copy->op = t->op;
        memcpy(copy->op_params, t->op_params, sizeof(copy->op_params));
        memcpy(copy->src, operands, sizeof(copy->src));
        g->s->n_tensors_c++;
    }
    if (copy != NULL) {
        ggml_format_name(copy, "%.50s again", ggml_get_name(t));
        copy->flags |= TNN_FLAG_AGAIN;
        copy->extra  = t;
    }
    return copy;
}

/* Makes copies of the nodes between node `end` and the flagged node before it, if there is one. */
static void copy_part(struct tnn_gradients * g, int end) {
    int begin = end - 1;
    while (begin >= 0 && !ends_part(g, begin)) {
        begin--;
    }
    for (int i = begin + 1; begin >= 0 && i < end && !g->failed; i++) {
        struct ggml_tensor * t = g->gf->nodes[i];
        if (can_copy(g, t)) {
            *slot_of(g, t) = copy_of(g, t);
            g->failed      = *slot_of(g, t) == NULL;
        }
    }
}

struct ggml_tensor * tnn__node_again(struct tnn_gradients * g, int i) {
    struct ggml_tensor * t = g->gf->nodes[i], * again = *slot_of(g, t);
    if (!ends_part(g, i) || !can_copy(g, t)) {
        return again != NULL ? again : t;
    }
    copy_part(g, i);
    /* this copy never runs, because t is kept; only the operands of the copy are read */
    again     = g->failed ? NULL : copy_of(g, t);
    g->failed = again == NULL;
    if (again != NULL) {
        *slot_of(g, t) = NULL;
        again->extra   = NULL;
        again->flags  &= ~TNN_FLAG_AGAIN;
    }
    return again;
}

void tnn__recompute_end(const struct tnn_gradients * g) {
    for (size_t i = 0; i < g->gb->visited_hash_set.size; i++) {
        if (g->again[i] != NULL) {
            /* extra pointed to the original node. From now on, extra is the handle, and NULL means that there is no
             * handle yet. */
            g->again[i]->extra  = NULL;
            g->again[i]->flags &= ~TNN_FLAG_AGAIN;
        }
    }
}

int64_t tnn__recompute_tensors(const struct ggml_cgraph * gf) {
    for (int i = 0; i < gf->n_nodes; i++) {
        if (gf->nodes[i]->flags & TNN_FLAG_RECOMPUTE) {
            return gf->n_nodes;
        }
    }
    return 0;
}
