/* graph/nodes.h - small functions that inspect a tensor of ggml. */
#ifndef TNN_NODES_H
#define TNN_NODES_H

#include "ggml.h"

/* Operand i of a node, as a bit of a mask. */
#define TNN_OPERAND(i)   (UINT32_C(1) << (i))
#define TNN_ALL_OPERANDS UINT32_MAX

/* The tensor that owns the memory of t: what t is a view of, or t itself. A macro, so that it keeps const. */
#define tnn__root(t) ((t)->view_src != NULL ? (t)->view_src : (t))

/* The number of operands: they are side by side, starting at src[0]. */
static inline int tnn__n_operands(const struct ggml_tensor * t) {
    int n = 0;
    while (n < GGML_MAX_SRC && t->src[n] != NULL) {
        n++;
    }
    return n;
}

static inline const float * tnn__data(const struct ggml_tensor * t) {
    return t->data;
}

#endif
