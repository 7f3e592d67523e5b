/* graph/nodes.h - small functions that inspect ggml's tensors. */
#ifndef TNN_NODES_H
#define TNN_NODES_H

#include <stdbool.h>

#include "ggml.h"

/* The bit for operand i in a mask of operands. */
#define TNN_OPERAND(i)   (UINT32_C(1) << (i))
#define TNN_ALL_OPERANDS UINT32_MAX

/* A bit of ggml_tensor.flags that ggml does not use: the current graph keeps the values of this tensor. ggml's flag of
 * an output does not show this, because an output of the second forward graph may be a node of the first graph, which
 * reuses the memory of the node. */
#define TNN_FLAG_KEPT (1 << 24)
/* Two more bits that ggml does not use. TNN_FLAG_RECOMPUTE: tnn_set_recompute flagged the tensor. TNN_FLAG_AGAIN: the
 * node is a copy of the node to which its field extra points. */
#define TNN_FLAG_RECOMPUTE (1 << 25)
#define TNN_FLAG_AGAIN     (1 << 26)

/* The tensor that owns the memory of t: the tensor of which t is a view, or t itself. This is a macro, so that the result
 * is const if t is const. */
#define tnn__root(t) ((t)->view_src != NULL ? (t)->view_src : (t))

/* Returns the number of operands. They are next to each other, starting at src[0]. */
static inline int tnn__n_operands(const struct ggml_tensor * t) {
    int n = 0;
    while (n < GGML_MAX_SRC && t->src[n] != NULL) {
        n++;
    }
    return n;
}

/* Returns whether tnn_detach made the node and tnn__losses_seal has not replaced it yet. Only tnn_detach makes a
 * STEP. */
static inline bool tnn__is_detach(const struct ggml_tensor * t) {
    return t->op == GGML_OP_UNARY && ggml_get_unary_op(t) == GGML_UNARY_OP_STEP;
}

static inline const float * tnn__data(const struct ggml_tensor * t) {
    return t->data;
}

#endif
