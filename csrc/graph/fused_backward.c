/* graph/fused_backward.c - appends the backward pass of a fused graph, without ggml's differentiation. From the loss back
 * to the parameters, the backward function of each node's kernel (kernels/kernel.h) appends the gradients of the node's
 * operands. */
#include "graph/fused_backward.h"

#include "graph/gradients.h"
#include "graph/recompute.h"
#include "kernels/embedding.h"

#include <stdlib.h>

#include "ggml-impl.h"

/* ------------------------------------------------------------------ nodes of ggml that a fused graph may have */

static void add_backward(struct tnn_gradients * g, struct ggml_tensor * node, struct ggml_tensor * grad) {
    for (int j = 0; j < 2; j++) {
        if (tnn__needs_gradient(g, node->src[j])) {
            tnn__pass_gradient(g, node->src[j], grad);
        }
    }
}

static const struct tnn_kernel_type ADD      = { .backward = add_backward, .differentiable = TNN_ALL_OPERANDS };
static const struct tnn_kernel_type GET_ROWS = { .backward = tnn__embedding_backward, .differentiable = TNN_OPERAND(0) };

/* Returns the kernel type that differentiates a node, or NULL if the node has no derivative in a fused graph. */
static const struct tnn_kernel_type * row_of(const struct ggml_tensor * t) {
    const struct tnn_kernel * k = tnn__kernel_of(t);
    if (k != NULL) {
        return k->type->backward != NULL || k->type->part_of != NULL ? k->type : NULL;
    }
    if (t->op == GGML_OP_ADD && ggml_are_same_shape(t->src[0], t->src[1])) {
        return &ADD;
    }
    return t->op == GGML_OP_GET_ROWS ? &GET_ROWS : NULL;
}

/* ------------------------------------------------------------------ checks */

static const struct ggml_tensor * loss_of(const struct ggml_cgraph * graph) {
    for (int i = graph->n_nodes - 1; i >= 0; i--) {
        if (graph->nodes[i]->flags & GGML_TENSOR_FLAG_LOSS) {
            return graph->nodes[i];
        }
    }
    return NULL;
}

bool tnn__is_fused(const struct ggml_cgraph * graph) {
    for (int i = 0; i < graph->n_nodes; i++) {
        const struct tnn_kernel * k = tnn__kernel_of(graph->nodes[i]);
        if ((graph->nodes[i]->flags & GGML_TENSOR_FLAG_LOSS) && k != NULL && k->type->is_loss) {
            return true;
        }
    }
    return false;
}

/* Returns whether a gradient can flow from node t to operand j of t. row is the kernel type of t. */
static bool gradient_flows(const struct tnn_kernel_type * row, const struct ggml_tensor * t, int j) {
    const struct tnn_kernel * from = tnn__kernel_of(t->src[j]);
    if (from != NULL && from->type->part_of != NULL) {
        const struct tnn_kernel * k = tnn__kernel_of(t);
        /* If src[0] has the type of t, and t only writes more rows of the same result, the gradient of t is also the
         * gradient of src[0]. */
        return row == from->type->part_of || (j == 0 && (row->reads_row_losses || (row == from->type && k->continues)));
    }
    return (row->differentiable & TNN_OPERAND(j)) != 0;
}

/* Returns an array, indexed by slot, that is true for each tensor that is a parameter or depends on one. The caller
 * frees the array with free(). Returns NULL with an error. */
static bool * find_needed(tnn_session * s, const struct ggml_cgraph * graph) {
    bool * needed = calloc(graph->visited_hash_set.size, sizeof(bool));
    if (needed == NULL) {
        tnn__fail(s, TNN_E_MEMORY, "cannot differentiate a graph of %d nodes: out of memory", graph->n_nodes);
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

/* Checks a node that depends on a parameter. */
static int check_node(tnn_session * s, const struct ggml_cgraph * gf, const bool * needed, const struct ggml_tensor * t) {
    const struct tnn_kernel      * k   = tnn__kernel_of(t);
    const struct tnn_kernel_type * row = row_of(t);
    if (t->op == GGML_OP_NONE) {
        return TNN_OK;
    }
    if (row == NULL) {
        return tnn__fail(s, TNN_E_VALUE, "node %s (%s) lies between a parameter and the loss, but has no derivative "
                                         "in a fused graph: "
                         "use the fused operators, tnn_get_rows and tnn_add of equal shapes", ggml_get_name(t),
                         k != NULL ? k->type->name : ggml_op_desc(t));
    }
    if (row->is_loss && !(t->flags & GGML_TENSOR_FLAG_LOSS)) {
        return tnn__fail(s, TNN_E_STATE, "node %s is a cross entropy that depends on a parameter, but this node is not the loss; a "
                                         "fused graph can have only one cross entropy of this kind", ggml_get_name(t));
    }
    for (int j = 0; j < tnn__n_operands(t); j++) {
        if (needed[ggml_hash_find(&gf->visited_hash_set, t->src[j])] && !gradient_flows(row, t, j)) {
            return tnn__fail(s, TNN_E_VALUE, "operand %d of node %s depends on a parameter, but no gradient flows to "
                                             "it; "
                             "use an operand that depends on no parameter", j, ggml_get_name(t));
        }
    }
    return TNN_OK;
}

int tnn__fused_check(tnn_session * s, const struct ggml_cgraph * gf) {
    const struct ggml_tensor * loss   = loss_of(gf);
    bool                     * needed = find_needed(s, gf);
    int                        rc     = needed != NULL ? TNN_OK : s->code;
    for (int i = 0; i < gf->n_nodes && rc == TNN_OK; i++) {
        const struct ggml_tensor * t = gf->nodes[i];
        if ((t->flags & GGML_TENSOR_FLAG_LOSS) && t != loss) {
            rc = tnn__fail(s, TNN_E_STATE, "two nodes are flagged as losses; a fused graph can have only one loss");
        } else if (needed[ggml_hash_find(&gf->visited_hash_set, t)]) {
            rc = check_node(s, gf, needed, t);
        }
    }
    if (rc == TNN_OK && !needed[ggml_hash_find(&gf->visited_hash_set, loss)]) {
        rc = tnn__fail(s, TNN_E_STATE, "the loss %s depends on no parameter; flag the trainable tensors with "
                                       "tnn_set_param "
                                       "before the forward graph is built", ggml_get_name(loss));
    }
    free(needed);
    return rc;
}

/* ------------------------------------------------------------------ the backward pass */

int tnn__fused_backward(tnn_session * s) {
    bool                * needed = find_needed(s, s->gf);
    struct ggml_tensor ** again  = needed != NULL ? calloc(s->gb->visited_hash_set.size, sizeof(*again)) : NULL;
    if (again == NULL) {
        free(needed);
        return tnn__fail(s, TNN_E_MEMORY, "cannot differentiate a graph of %d nodes: out of memory", s->gf->n_nodes);
    }
    struct tnn_gradients g = { .s = s, .gb = s->gb, .gf = s->gf, .needed = needed, .again = again, .failed = false };
    for (int i = s->gf->n_nodes - 1; i >= 0 && !g.failed; i--) {
        struct ggml_tensor           * t    = s->gf->nodes[i];
        struct ggml_tensor           * grad = tnn__gradient_so_far(&g, t);
        const struct tnn_kernel_type * row  = tnn__needs_gradient(&g, t) ? row_of(t) : NULL;
        struct ggml_tensor           * node = tnn__node_again(&g, i);
        if (!g.failed && row != NULL && row->backward != NULL && (grad != NULL || row->is_loss)) {
            row->backward(&g, node, grad);
        }
    }
    tnn__recompute_end(&g);
    free(again);
    free(needed);
    return g.failed ? s->code : TNN_OK;
}
