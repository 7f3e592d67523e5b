/* graph/half_products.c - the backward pass of products with f16 and bf16 matrices.
 *
 * ggml computes the gradient of x in the product a x, for a matrix a of any dtype, as OUT_PROD(a, TRANSPOSE(grad)).
 * ggml's CPU backend aborts if a is bf16. Here the node becomes MUL_MAT(CONT(TRANSPOSE(a)), grad) for f16 and bf16, as
 * in the Ruby project toy. */
#include "graph/half_products.h"

#define TENSORS_PER_PRODUCT 3 /* number of added tensors: TRANSPOSE and CONT of the matrix, CONT of the gradient */

static bool is_half(const struct ggml_tensor * t) {
    return t->type == GGML_TYPE_F16 || t->type == GGML_TYPE_BF16;
}

bool tnn__is_half_cast(const struct ggml_tensor * t) {
    return t->op == GGML_OP_CPY && t->src[1] == t && is_half(t) && t->src[0]->type == GGML_TYPE_F32;
}

int64_t tnn__half_product_tensors(const struct ggml_cgraph * graph) {
    int64_t n = 0;
    for (int i = 0; i < graph->n_nodes; i++) {
        const struct ggml_tensor * t = graph->nodes[i];
        n += t->op == GGML_OP_MUL_MAT && is_half(t->src[0]) ? TENSORS_PER_PRODUCT : 0;
    }
    return n;
}

/* ------------------------------------------------------------------ gradients of products */

/* Returns whether a node of the backward pass is a gradient of x that ggml has built (see the top of this file). */
static bool is_half_gradient(const struct ggml_tensor * t) {
    return t->op == GGML_OP_OUT_PROD && is_half(t->src[0]) && t->src[1]->op == GGML_OP_TRANSPOSE;
}

/* Adds a new node to the graph, as ggml_build_forward_expand does. */
static struct ggml_tensor * added(struct ggml_cgraph * graph, struct ggml_tensor * t) {
    t->flags |= GGML_TENSOR_FLAG_COMPUTE;
    const size_t slot = ggml_hash_find_or_insert(&graph->visited_hash_set, t);
    graph->use_counts[slot] = 1;
    return t;
}

/* Replaces each node from n_forward on that is a gradient of x (see the top of this file) by a product. */
static void rewrite_gradients(tnn_session * s, struct ggml_cgraph * graph, int n_forward) {
    int n = graph->n_nodes;
    for (int i = n_forward; i < graph->n_nodes; i++) {
        if (is_half_gradient(graph->nodes[i])) {
            n += ggml_is_contiguous(graph->nodes[i]->src[1]->src[0]) ? 2 : 3;
        }
    }
    int to = n;
    for (int i = graph->n_nodes - 1; to > i + 1; i--) { /* starts at the end, so that each node moves to a free place */
        struct ggml_tensor * t = graph->nodes[--to] = graph->nodes[i];
        if (i < n_forward || !is_half_gradient(t)) {
            continue;
        }
        struct ggml_tensor * turned = t->src[1], * grad = turned->src[0];
        struct ggml_tensor * a_t    = added(graph, ggml_transpose(s->ctx_c, t->src[0]));
        t->op     = GGML_OP_MUL_MAT;
        t->src[0] = added(graph, ggml_cont(s->ctx_c, a_t));
        t->src[1] = ggml_is_contiguous(grad) ? grad : added(graph, ggml_cont(s->ctx_c, grad));
        turned->src[0] = NULL; /* marks the TRANSPOSE as unused: the loop below removes it */
        if (t->src[1] != grad) {
            graph->nodes[--to] = t->src[1];
        }
        graph->nodes[--to] = t->src[0];
        graph->nodes[--to] = a_t;
    }
    graph->n_nodes = n_forward;
    for (int i = n_forward; i < n; i++) {
        struct ggml_tensor * t = graph->nodes[i];
        if (t->op != GGML_OP_TRANSPOSE || t->src[0] != NULL) {
            graph->nodes[graph->n_nodes++] = t;
        }
    }
}

/* ------------------------------------------------------------------ casts to bf16 */

void tnn__backward_expand(tnn_session * s, struct ggml_cgraph * graph) {
    const int n_forward = graph->n_nodes;
    /* ggml differentiates a cast to f16, but asserts that no node with a gradient is bf16. Casts to f16 and bf16 have
     * the same derivative, so a cast to bf16 gets the type f16 while ggml builds the graph. A CPY node does not use
     * op_params, so op_params[0] marks the changed nodes. */
    for (int i = 0; i < n_forward; i++) {
        struct ggml_tensor * t = graph->nodes[i];
        if (tnn__is_half_cast(t) && t->type == GGML_TYPE_BF16) {
            t->type         = GGML_TYPE_F16;
            t->op_params[0] = GGML_TYPE_BF16;
        }
    }
    ggml_build_backward_expand(s->ctx_c, graph, NULL);
    for (int i = 0; i < n_forward; i++) {
        struct ggml_tensor * t = graph->nodes[i];
        if (tnn__is_half_cast(t) && t->op_params[0] == GGML_TYPE_BF16) {
            t->type         = GGML_TYPE_BF16;
            t->op_params[0] = 0;
        }
    }
    rewrite_gradients(s, graph, n_forward);
}
