/* graph/gradients.c - appends the nodes that compute gradients of a fused graph, and adds up the gradients of each
 * tensor. */
#include "graph/gradients.h"

#include <string.h>

#include "ggml-impl.h"

/* Returns the tensor that t computes again, or t itself. Both have the same gradient. */
static const struct ggml_tensor * first_of(const struct ggml_tensor * t) {
    return (t->flags & TNN_FLAG_AGAIN) != 0 ? t->extra : t;
}

bool tnn__needs_gradient(const struct tnn_gradients * g, const struct ggml_tensor * t) {
    return g->needed[ggml_hash_find(&g->gf->visited_hash_set, first_of(t))];
}

static struct ggml_tensor ** grad_slot(const struct tnn_gradients * g, const struct ggml_tensor * t) {
    return &g->gb->grads[ggml_hash_find(&g->gb->visited_hash_set, first_of(t))];
}

struct ggml_tensor * tnn__gradient_so_far(const struct tnn_gradients * g, const struct ggml_tensor * t) {
    return *grad_slot(g, t);
}

struct ggml_tensor * tnn__take_gradient(const struct tnn_gradients * g, const struct ggml_tensor * t) {
    struct ggml_tensor * grad = *grad_slot(g, t);
    *grad_slot(g, t) = NULL;
    return grad;
}

void tnn__pass_gradient(struct tnn_gradients * g, struct ggml_tensor * t, struct ggml_tensor * grad) {
    struct ggml_tensor * before = *grad_slot(g, t);
    if (grad == NULL) {
        return; /* out of memory */
    }
    if (before == NULL) {
        *grad_slot(g, t) = grad;
        return;
    }
    struct ggml_tensor * sum = ggml_add(g->s->ctx_c, before, grad);
    g->s->n_tensors_c++;
    ggml_build_forward_expand(g->gb, sum);
    *grad_slot(g, t) = sum;
}

/* How a kernel node adds its result to the sum of the gradients that were added before: has_add and continues have the
 * same meaning as in struct tnn_kernel. */
struct start {
    bool has_add, continues;
};

/* Appends a kernel node that computes a gradient of t into a new tensor, or into args[0] if start.continues. Returns
 * NULL with an error. */
static struct ggml_tensor * emit(struct tnn_gradients * g, const struct ggml_tensor * t, const struct tnn_kernel_type * type,
                                 const void * params, struct start start, struct ggml_tensor ** args, int n_args) {
    const int64_t        ne0  = start.continues ? 0 : t->ne[0];
    const int64_t        rows = args[start.continues ? 1 : 0]->ne[1], windows = g->s->windows.n;
    if (!g->failed && type->over_windows && !type->at_once && rows % windows != 0) {
        tnn__fail(g->s, TNN_E_VALUE, "the gradient of %s is a sum over %lld rows, which must consist of %lld windows of equal size; "
                                     "tnn_session_set_windows sets the number of windows", ggml_get_name(t), (long long) rows,
                  (long long) windows);
        g->failed = true;
    }
    struct ggml_tensor * node = g->failed ? NULL : tnn__kernel_node(g->s, type, params, ne0, t->ne[1], args, n_args);
    if (node == NULL) {
        g->failed = true;
        return NULL;
    }
    struct tnn_kernel * k = tnn__kernel_of(node);
    k->has_add     = start.has_add;
    k->continues   = start.continues;
    k->gradient_of = type->sum == TNN_SUM_IN_PLACE ? t : NULL;
    ggml_format_name(node, "grad of %.50s", ggml_get_name(first_of(t)));
    ggml_build_forward_expand(g->gb, node);
    return node;
}

void tnn__add_gradient(struct tnn_gradients * g, struct ggml_tensor * t, const struct tnn_kernel_type * type, const void * params,
                       struct ggml_tensor ** args, int n_args) {
    struct ggml_tensor      * before   = *grad_slot(g, t);
    const struct tnn_kernel * k_before = before != NULL ? tnn__kernel_of(before) : NULL;
    /* The memory of `before` holds only this gradient, so a kernel may add to it in place. */
    const bool                own      = k_before != NULL && k_before->gradient_of == t;
    struct ggml_tensor      * operands[GGML_MAX_SRC];
    if (before == NULL || type->sum == TNN_SUM_BY_NODE || (type->sum == TNN_SUM_IN_PLACE && !own)) {
        tnn__pass_gradient(g, t, emit(g, t, type, params, (struct start) { 0 }, args, n_args));
    } else if (type->sum == TNN_SUM_OPERAND) {
        memcpy(operands, args, (size_t) n_args * sizeof(*args));
        operands[n_args] = before;
        *grad_slot(g, t) = emit(g, t, type, params, (struct start) { .has_add = true }, operands, n_args + 1);
    } else {
        operands[0] = before;
        memcpy(&operands[1], args, (size_t) n_args * sizeof(*args));
        *grad_slot(g, t) = emit(g, t, type, params, (struct start) { .continues = true }, operands, n_args + 1);
    }
}
